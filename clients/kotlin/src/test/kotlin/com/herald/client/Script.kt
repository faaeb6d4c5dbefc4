package com.herald.client

import com.google.protobuf.Any as ProtoAny
import com.google.protobuf.MessageLite
import com.google.protobuf.any
import com.google.protobuf.duration
import com.herald.client.status.errorInfo
import com.herald.client.status.retryInfo
import com.herald.client.status.status
import com.herald.game.v1.DeliveredEvent
import com.herald.game.v1.StreamEventsRequest
import com.herald.game.v1.StreamEventsResponse
import com.herald.game.v1.StreamEventsResponseKt
import com.herald.game.v1.caughtUp
import com.herald.game.v1.closing
import com.herald.game.v1.eventBatch
import com.herald.game.v1.heartbeat
import com.herald.game.v1.opened
import com.herald.game.v1.streamEventsResponse
import io.grpc.Metadata
import io.grpc.Status
import io.grpc.StatusException
import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.awaitCancellation
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.test.TestScope
import kotlinx.coroutines.test.currentTime

/** What a stream sends, and its end: an error, or OK, or silence. */
internal class Stream(vararg val responses: StreamEventsResponse, val end: Exception? = null, val silent: Boolean = false)

/** Answers each request with the next stream, and keeps the requests and when they came. */
internal class Script(private val scope: TestScope, vararg streams: Stream) {
    private val streams = ArrayDeque(streams.asList())
    val requests = mutableListOf<StreamEventsRequest>()
    val at = mutableListOf<Duration>()

    @OptIn(ExperimentalCoroutinesApi::class)
    fun open(request: StreamEventsRequest): Flow<StreamEventsResponse> = flow {
        requests += request
        at += scope.currentTime.milliseconds
        val next = streams.removeFirst()
        next.responses.forEach { emit(it) }
        if (next.silent) awaitCancellation()
        next.end?.let { throw it }
    }
}

private fun response(at: String, fill: StreamEventsResponseKt.Dsl.() -> Unit) = streamEventsResponse {
    cursor = at
    fill()
}

internal fun opened(cursor: String) = response(cursor) { opened = opened {} }

internal fun heartbeat(cursor: String) = response(cursor) { heartbeat = heartbeat {} }

internal fun caughtUp(cursor: String) = response(cursor) { caughtUp = caughtUp {} }

internal fun events(cursor: String, count: Int) = response(cursor) {
    batch = eventBatch { repeat(count) { events += DeliveredEvent.getDefaultInstance() } }
}

internal fun closing(cursor: String, delay: Duration, canResume: Boolean) = response(cursor) {
    closing = closing {
        reconnectDelay = duration { seconds = delay.inWholeSeconds }
        resumable = canResume
    }
}

internal fun detail(type: String, message: MessageLite): ProtoAny = any {
    typeUrl = "type.googleapis.com/google.rpc.$type"
    value = message.toByteString()
}

/** An error with details, as it is on the wire. */
internal fun failed(code: Status.Code, vararg details: ProtoAny): StatusException {
    val trailers = Metadata()
    val all = status { this.details += details.asList() }
    trailers.put(Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER), all.toByteArray())
    return StatusException(code.toStatus().withDescription("told by a test"), trailers)
}

/** An error of the server, with a RetryInfo if there is a delay. */
internal fun told(code: Status.Code, why: String, delay: Duration? = null, of: String = "herald"): StatusException {
    val info = errorInfo {
        reason = why
        domain = of
    }
    val retry = retryInfo { retryDelay = duration { seconds = delay?.inWholeSeconds ?: 0 } }
    val details = listOf(detail("ErrorInfo", info), detail("RetryInfo", retry))
    return failed(code, *details.take(if (delay != null) 2 else 1).toTypedArray())
}
