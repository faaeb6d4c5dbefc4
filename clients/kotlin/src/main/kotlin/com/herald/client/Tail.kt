package com.herald.client

import com.herald.game.v1.Closing
import com.herald.game.v1.EventFeedServiceGrpcKt
import com.herald.game.v1.StreamEventsRequest
import com.herald.game.v1.StreamEventsResponse
import com.herald.game.v1.StreamEventsResponse.ResponseCase
import io.grpc.Status.Code
import io.grpc.StatusException
import kotlin.time.Duration
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.channels.ReceiveChannel
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.FlowCollector
import kotlinx.coroutines.flow.buffer
import kotlinx.coroutines.flow.catch
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.map
import kotlinx.coroutines.flow.produceIn
import kotlinx.coroutines.withTimeoutOrNull

/** That of the server. */
private val DEFAULT_HEARTBEAT = 15.seconds

/** Into which the server brings those of requests. */
private val HEARTBEAT_RANGE = 1.seconds..60.seconds

/** One heartbeat may be late, two may be lost to a hiccup of the network. */
private const val SILENT_INTERVALS = 3

/**
 * What [request] asks for, from as many streams as it takes: when one breaks, falls silent for three
 * heartbeat intervals or is closed, another one is opened behind the newest cursor, after a wait.
 *
 * Deal with the events of a response, then store its cursor; start behind it (after_cursor) the next
 * time. After a crash some events may come again, and none is lost.
 *
 * It ends after max_events, counted over all streams, and once caught up, with stop_when_caught_up;
 * or with a [HeraldException] that trying again cannot help, such as CURSOR_EXPIRED, which has
 * earliest_cursor and latest_cursor in its metadata, or that the client is closed. There is no bound
 * on the attempts: cancel the collector to end it, as a lifecycle does. What the collector throws is
 * thrown on as it is.
 */
public fun HeraldClient.tail(request: StreamEventsRequest): Flow<StreamEventsResponse> =
    resumed(request) { open(EventFeedServiceGrpcKt.streamEventsMethod, it) }

internal fun HeraldClient.resumed(
    request: StreamEventsRequest,
    open: (StreamEventsRequest) -> Flow<StreamEventsResponse>,
): Flow<StreamEventsResponse> = flow {
    val place = Place(request)
    while (true) {
        if (isClosed) throw closed()
        val wait = read(this@resumed, place, open)
        if (place.isComplete) return@flow
        pause(wait)
    }
}

/** Hands over one stream, and says how long to wait before the next one. */
private suspend fun FlowCollector<StreamEventsResponse>.read(
    client: HeraldClient,
    place: Place,
    open: (StreamEventsRequest) -> Flow<StreamEventsResponse>,
): Duration = coroutineScope {
    // Its error is a value, so that it comes after what was sent before.
    val stream =
        open(place.next()).map { Result.success(it) }.catch { emit(Result.failure(it)) }
            .buffer(Channel.RENDEZVOUS).produceIn(this)
    try {
        handOver(stream, client, place)
    } finally {
        stream.cancel()
    }
}

private suspend fun FlowCollector<StreamEventsResponse>.handOver(
    stream: ReceiveChannel<Result<StreamEventsResponse>>,
    client: HeraldClient,
    place: Place,
): Duration {
    while (true) {
        // Without the time that the collector takes; that is not the server's.
        val next = withTimeoutOrNull(place.patience) { stream.receiveCatching() }
        val came = next?.getOrNull() ?: return place.waits.after(Duration.ZERO)
        val response = came.getOrElse { return if (client.isClosed) Duration.ZERO else place.broken(it) }
        place.take(response)
        // What it throws is the collector's, and no error of the stream: nothing here may catch it.
        emit(response)
        if (response.hasClosing()) return place.closed(response.closing)
    }
}

/** What is known between two streams. */
private class Place(private val request: StreamEventsRequest) {
    val waits = Waits()
    val patience =
        (if (request.hasHeartbeatInterval()) request.heartbeatInterval.toKotlin() else DEFAULT_HEARTBEAT)
            .coerceIn(HEARTBEAT_RANGE) * SILENT_INTERVALS
    private var cursor = ""
    private var got = 0L
    private var caughtUp = false

    /** Whether all that was asked for has come, so that a broken stream is none. */
    val isComplete: Boolean
        get() = request.maxEvents in 1..got || request.stopWhenCaughtUp && caughtUp

    /** The first request, or the one that goes on behind what has come. */
    fun next(): StreamEventsRequest {
        val next = request.toBuilder()
        if (cursor.isNotEmpty()) next.afterCursor = cursor
        // A negative one is for the server to refuse.
        if (request.maxEvents > 0) next.maxEvents = request.maxEvents - got
        return next.build()
    }

    fun take(response: StreamEventsResponse) {
        if (response.cursor.isNotEmpty()) cursor = response.cursor
        when (response.responseCase) {
            ResponseCase.BATCH -> {
                // Only now: a server that takes connections and then fails is not well.
                waits.reset()
                got += response.batch.eventsCount
            }
            ResponseCase.CAUGHT_UP -> caughtUp = true
            ResponseCase.FELL_BEHIND -> caughtUp = false
            else -> {}
        }
    }

    /** The wait after a stream that failed with [cause]. */
    fun broken(cause: Throwable): Duration {
        if (cause !is StatusException) throw cause
        val failed = heraldException(cause.status, cause.trailers, cause)
        if (!isComplete && !failed.isRetryable) throw failed
        return waits.after(failed.retryDelay)
    }

    /** The wait that the server asks for, as it spreads its readers by that. */
    fun closed(closing: Closing): Duration {
        val asked = closing.reconnectDelay.toKotlin()
        return when {
            !closing.resumable && !isComplete ->
                throw HeraldException(
                    Code.FAILED_PRECONDITION, null,
                    "the server closed the stream and its cursor cannot be used to go on",
                )
            asked > Duration.ZERO -> minOf(asked, LONGEST_ASKED)
            else -> waits.after(Duration.ZERO)
        }
    }
}
