package com.herald.client

import com.google.protobuf.Duration as ProtoDuration
import com.google.protobuf.InvalidProtocolBufferException
import com.herald.client.status.BadRequest
import com.herald.client.status.ErrorInfo
import com.herald.client.status.RetryInfo
import com.herald.client.status.Status as Details
import io.grpc.Metadata
import io.grpc.Status
import io.grpc.Status.Code
import kotlin.time.Duration
import kotlin.time.Duration.Companion.nanoseconds
import kotlin.time.Duration.Companion.seconds

/** The domain of the server's own errors; those of another one are of a proxy. */
private const val DOMAIN = "herald"

private val DETAILS = Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER)

/** One field that was refused: its path in the request, such as item_id, and what is wrong. */
public data class Violation(val field: String, val description: String)

/**
 * What a call or the feed failed with. All texts may hold anything.
 *
 * @property code the status code
 * @property reason the server's own, such as VALIDATION_FAILED; null where the error is of the
 *   library or of a proxy
 * @property violations the fields that were refused
 * @property metadata more of the server about the reason, such as earliest_cursor
 * @property requestId that of the action, also where the caller gave none; null where there is no
 *   action. With the same id the same action is carried out once, however often it is tried.
 * @property mayHaveHappened the action may have been carried out all the same
 */
public class HeraldException
internal constructor(
    public val code: Code,
    public val reason: String?,
    private val text: String,
    public val violations: List<Violation> = emptyList(),
    public val metadata: Map<String, String> = emptyMap(),
    private val asked: Duration? = null,
    public val requestId: String? = null,
    public val mayHaveHappened: Boolean = false,
    cause: Throwable? = null,
) : Exception(cause) {
    /** How long to wait at least before the same is tried again; zero if not told. */
    public val retryDelay: Duration
        get() = asked ?: Duration.ZERO

    /** For people; it may change. */
    override val message: String
        get() = buildString {
            append("$text (${reason ?: code})")
            violations.forEach { append("; ${it.field}: ${it.description}") }
            if (mayHaveHappened) {
                append("; the action may have been carried out, try again with request id $requestId")
            }
        }

    internal fun of(requestId: String?, mayHaveHappened: Boolean): HeraldException =
        HeraldException(
            code, reason, text, violations, metadata, asked, requestId, mayHaveHappened, cause,
        )

    /** Whether the same may succeed later. */
    internal val isRetryable: Boolean
        get() =
            when (reason) {
                "LOG_UNAVAILABLE", "OVERLOADED", "REQUEST_IN_PROGRESS", "STATE_BEHIND",
                "STREAM_DEADLINE", "SUBSCRIBER_LIMIT", "WRITE_OUTCOME_UNKNOWN" -> true
                null ->
                    code in
                        setOf(
                            Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNKNOWN,
                            Code.CANCELLED,
                        )
                else -> asked != null || code == Code.UNAVAILABLE
            }

    /** Whether an action that reached the server, or a proxy, and failed so may have happened. */
    internal val leavesOpenWhatHappened: Boolean
        get() =
            if (reason == null) code != Code.UNIMPLEMENTED
            else reason == "WRITE_OUTCOME_UNKNOWN" || reason == "REQUEST_IN_PROGRESS"
}

/** Reads the details of a status. */
internal fun heraldException(status: Status, trailers: Metadata?, cause: Throwable?): HeraldException {
    var info = ErrorInfo.getDefaultInstance()
    var violations = emptyList<Violation>()
    var asked: Duration? = null
    try {
        val details = trailers?.get(DETAILS)?.let(Details::parseFrom) ?: Details.getDefaultInstance()
        for (detail in details.detailsList) {
            when (detail.typeUrl.substringAfterLast('/')) {
                "google.rpc.ErrorInfo" -> ErrorInfo.parseFrom(detail.value).let { if (it.domain == DOMAIN) info = it }
                "google.rpc.RetryInfo" -> asked = RetryInfo.parseFrom(detail.value).retryDelay.toKotlin()
                "google.rpc.BadRequest" ->
                    violations =
                        BadRequest.parseFrom(detail.value).fieldViolationsList.map {
                            Violation(it.field, it.description)
                        }
            }
        }
    } catch (_: InvalidProtocolBufferException) {
        // Of a proxy; what could be read counts.
    }
    return HeraldException(
        code = status.code,
        reason = info.reason.ifEmpty { null },
        text = status.description ?: status.code.name,
        violations = violations,
        metadata = info.metadataMap,
        asked = asked,
        cause = cause,
    )
}

internal fun ProtoDuration.toKotlin(): Duration = seconds.seconds + nanos.nanoseconds
