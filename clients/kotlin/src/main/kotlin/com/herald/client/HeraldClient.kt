package com.herald.client

import io.grpc.Attributes
import io.grpc.CallOptions
import io.grpc.ClientStreamTracer
import io.grpc.ConnectivityState
import io.grpc.ManagedChannel
import io.grpc.Metadata
import io.grpc.MethodDescriptor
import io.grpc.Status
import io.grpc.StatusException
import io.grpc.kotlin.ClientCalls
import io.grpc.okhttp.OkHttpChannelBuilder
import java.net.URI
import java.net.URISyntaxException
import java.util.UUID
import java.util.concurrent.RejectedExecutionException
import java.util.concurrent.TimeUnit
import kotlin.time.Duration
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.Job
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.withTimeoutOrNull

/** How long an attempt of a call may take unless told. */
public val DEFAULT_TIMEOUT: Duration = 5.seconds

/** How often a call is tried at the most unless told. */
public const val DEFAULT_ATTEMPTS: Int = 5

/** Room for a catalogue of 10,000 items with the longest names, and for any batch of events. */
private const val MAX_RESPONSE_BYTES = 16 * 1024 * 1024

/**
 * Calls to one server, over a connection that is made at the first one, and anew after it broke.
 * Methods are those of `GameServiceGrpcKt` and `EventFeedServiceGrpcKt`; for the feed see [tail].
 */
public class HeraldClient(internal val channel: ManagedChannel) : AutoCloseable {
    private val closing = Job()

    /** Calls the server at [endpoint], such as `http://10.0.2.2:50051` or `https://game.example`. */
    public constructor(endpoint: String) : this(channelTo(endpoint))

    /**
     * Makes one call, in [attempts] attempts of [timeout] each, of which all after the first are
     * made only when trying again can help. An action without a request id is given one, a UUID,
     * and keeps it through all attempts.
     *
     * @throws HeraldException what remains. Cancelling ends the waits too, and says nothing of the
     *   action: give it a request id of your own where you want to know later.
     */
    public suspend fun <Q : Any, A : Any> call(
        method: MethodDescriptor<Q, A>,
        request: Q,
        timeout: Duration = DEFAULT_TIMEOUT,
        attempts: Int = DEFAULT_ATTEMPTS,
    ): A =
        attempt(request, attempts) { named, reach ->
            val options =
                CallOptions.DEFAULT.withStreamTracerFactory(reach)
                    .withDeadlineAfter(timeout.inWholeNanoseconds, TimeUnit.NANOSECONDS)
            connectAtOnce()
            ClientCalls.unaryRpc(channel, method, named, options, Metadata())
        }

    internal fun <Q, A> open(method: MethodDescriptor<Q, A>, request: Q): Flow<A> {
        connectAtOnce()
        return ClientCalls.serverStreamingRpc(channel, method, request, CallOptions.DEFAULT, Metadata())
    }

    /** Without it the channel waits by itself too after it failed to connect, up to two minutes. */
    private fun connectAtOnce() {
        if (channel.getState(false) == ConnectivityState.TRANSIENT_FAILURE) channel.enterIdle()
    }

    /**
     * To be called when the network of a phone changes: later calls are made on a new connection, at
     * once. Those under way stay on the old one, and a tail until it breaks or is silent.
     */
    public fun networkChanged() {
        channel.enterIdle()
    }

    /**
     * Ends the connection, and all calls and tails on it: at once, with a [HeraldException] of code
     * CANCELLED, as those that come later.
     */
    override fun close() {
        channel.shutdownNow()
        closing.complete()
    }

    /** Also where it was the channel that was shut down. */
    internal val isClosed: Boolean
        get() = channel.isShutdown

    internal fun closed() = HeraldException(Status.Code.CANCELLED, null, "the client is closed")

    /** Waits, until the client is closed at the longest. */
    internal suspend fun pause(wait: Duration) {
        if (!isClosed) withTimeoutOrNull(wait) { closing.join() }
    }
}

/** The attempts of a call. */
internal suspend fun <Q : Any, A> HeraldClient.attempt(
    request: Q,
    attempts: Int,
    once: suspend (Q, Reach) -> A,
): A {
    val requestId = requestIdOf(request)?.ifEmpty { UUID.randomUUID().toString() }
    val named = if (requestId == null) request else withRequestId(request, requestId)
    val waits = Waits()
    // In any attempt: what one that came later says is not about those before.
    var mayHaveHappened = false
    var left = attempts
    while (true) {
        if (isClosed) throw closed().of(requestId, mayHaveHappened)
        val reach = Reach()
        try {
            return once(named, reach)
        } catch (cause: StatusException) {
            val failed = heraldException(cause.status, cause.trailers, cause)
            if (requestId != null && reach.sent && failed.leavesOpenWhatHappened) mayHaveHappened = true
            left--
            if (!failed.isRetryable || left <= 0 && !isClosed) throw failed.of(requestId, mayHaveHappened)
            pause(waits.after(failed.retryDelay))
        } catch (cause: RejectedExecutionException) {
            // Of threads that ended with the channel.
            if (!isClosed) throw cause
        }
    }
}

/** Whether there was a connection to send a call on. */
internal class Reach : ClientStreamTracer.Factory() {
    @Volatile var sent = false

    override fun newClientStreamTracer(info: ClientStreamTracer.StreamInfo, headers: Metadata) =
        object : ClientStreamTracer() {
            override fun streamCreated(transport: Attributes, headers: Metadata) {
                sent = true
            }
        }
}

private fun channelTo(endpoint: String): ManagedChannel {
    val address = try { URI(endpoint) } catch (_: URISyntaxException) { URI("") }
    val plain = address.scheme == "http"
    require(address.host != null && (plain || address.scheme == "https")) {
        "\"$endpoint\" is no server address, write it like https://host:50051"
    }
    val port = if (address.port > 0) address.port else if (plain) 80 else 443
    val builder = OkHttpChannelBuilder.forAddress(address.host, port)
    if (plain) builder.usePlaintext()
    return builder
        .maxInboundMessageSize(MAX_RESPONSE_BYTES)
        // What is tried again, and when, is known here.
        .disableRetry()
        // A phone that changes its network is not told that connections are gone. Only during
        // calls: an idle connection must not wake the radio, and is closed after a while.
        .keepAliveTime(20, TimeUnit.SECONDS)
        .keepAliveTimeout(10, TimeUnit.SECONDS)
        .keepAliveWithoutCalls(false)
        .idleTimeout(2, TimeUnit.MINUTES)
        .build()
}
