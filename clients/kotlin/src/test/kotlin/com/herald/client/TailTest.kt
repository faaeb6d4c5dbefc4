package com.herald.client

import com.google.protobuf.CodedOutputStream
import com.google.protobuf.duration
import com.herald.game.v1.StreamEventsRequest
import com.herald.game.v1.StreamEventsResponse
import com.herald.game.v1.streamEventsRequest
import io.grpc.Status
import io.grpc.Status.Code
import java.io.ByteArrayOutputStream
import kotlin.test.AfterTest
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFails
import kotlin.test.assertFailsWith
import kotlin.test.assertSame
import kotlin.test.assertTrue
import kotlin.time.Duration
import kotlin.time.Duration.Companion.hours
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.minutes
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.TimeoutCancellationException
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.test.currentTime
import kotlinx.coroutines.test.runTest
import kotlinx.coroutines.withTimeout

/** The clock stands still in all tests but for waits, which take no time. */
@OptIn(ExperimentalCoroutinesApi::class)
class TailTest {
    private val all = StreamEventsRequest.getDefaultInstance()
    /** Never connected. */
    private val client = HeraldClient("http://127.0.0.1:1")

    @AfterTest
    fun close() = client.close()

    private suspend fun read(script: Script, request: StreamEventsRequest = all): Int =
        client.resumed(request, script::open).toList().sumOf { it.batch.eventsCount }

    @Test
    fun `goes on behind the newest cursor with what is left of max_events`() = runTest {
        val script =
            Script(
                this,
                Stream(opened("a"), events("b", 3), end = told(Code.UNAVAILABLE, "LOG_UNAVAILABLE")),
                // A heartbeat moves the cursor over what the filter has passed.
                Stream(opened("b"), heartbeat("c")),
                Stream(opened("c"), events("d", 2), end = told(Code.OUT_OF_RANGE, "CURSOR_EXPIRED")),
            )
        assertEquals(5, read(script, streamEventsRequest { maxEvents = 5 }))
        val asked = script.requests.map { it.afterCursor to it.maxEvents }
        assertEquals(listOf("" to 5L, "b" to 2L, "c" to 2L), asked)
    }

    @Test
    fun `three silent intervals are a broken stream`() = runTest {
        // The last one is silent too; but all that was asked for has come.
        val script =
            Script(this, Stream(opened("a"), silent = true), Stream(opened("a"), events("b", 1), silent = true))
        val request = streamEventsRequest {
            heartbeatInterval = duration { seconds = 4 }
            maxEvents = 1
        }
        assertEquals(1, read(script, request))
        assertTrue(script.at[1] in 12.seconds..12.25.seconds, "${script.at}")
    }

    @Test
    fun `a collector that takes its time does not break the stream`() = runTest {
        val script = Script(this, Stream(opened("a"), heartbeat("b"), events("c", 1)))
        client.resumed(streamEventsRequest { maxEvents = 1 }, script::open).collect { delay(1.hours) }
        assertEquals(1, script.requests.size)
    }

    @Test
    fun `a closing server says when to come back`() = runTest {
        val script =
            Script(
                this,
                Stream(opened("a"), closing("b", 7.seconds, canResume = true), silent = true),
                Stream(opened("b"), closing("b", 1.hours, canResume = true), silent = true),
                Stream(opened("b"), closing("b", Duration.ZERO, canResume = false), silent = true),
            )
        val error = assertFailsWith<HeraldException> { read(script) }
        assertEquals(Code.FAILED_PRECONDITION, error.code)
        assertEquals(listOf(Duration.ZERO, 7.seconds, 7.seconds + 5.minutes), script.at)
        assertEquals("b", script.requests[1].afterCursor)
    }

    @Test
    fun `waits grow until an event comes, and a lost position is final`() = runTest {
        // A stream that opens, and shows that the server is there, has brought nothing yet.
        val cut = Stream(opened("a"), heartbeat("a"), end = Status.INTERNAL.asException())
        val script =
            Script(
                this,
                *Array(6) { cut },
                Stream(opened("a"), events("b", 1)),
                Stream(end = told(Code.RESOURCE_EXHAUSTED, "SUBSCRIBER_LIMIT", 40.seconds)),
                Stream(end = told(Code.OUT_OF_RANGE, "CURSOR_EXPIRED")),
            )
        assertEquals("CURSOR_EXPIRED", assertFailsWith<HeraldException> { read(script) }.reason)
        val waits = script.at.zipWithNext { before, after -> after - before }
        var full = 250.milliseconds
        for (wait in waits.take(6)) {
            assertTrue(wait in full / 2..full, "$waits")
            full *= 2
        }
        assertTrue(waits[6] <= 250.milliseconds, "$waits")
        assertEquals(40.seconds, waits[7])
    }

    @Test
    fun `a stream that just ends has not caught up`() = runTest {
        val script =
            Script(
                this,
                // As a proxy may cut it.
                Stream(opened("a"), events("b", 1)),
                Stream(opened("b"), events("c", 1), caughtUp("c"), silent = true),
            )
        assertEquals(2, read(script, streamEventsRequest { stopWhenCaughtUp = true }))
    }

    @Test
    fun `what the caller ends is not tried again`() = runTest {
        val script = Script(this, Stream(opened("a"), silent = true), Stream(opened("a"), silent = true))
        assertFailsWith<TimeoutCancellationException> { withTimeout(10.seconds) { read(script) } }
        assertEquals("a", client.resumed(all, script::open).first().cursor)
        assertEquals(2, script.requests.size)
    }

    @Test
    fun `what the collector throws is thrown on, and no error of the stream`() = runTest {
        // Of a number, so that coroutines do not make copies of them, as they do where assertions are on.
        class Own(val what: Int) : Exception()
        class OwnEnd(val what: Int) : CancellationException()
        val thrown =
            listOf(
                Status.UNAVAILABLE.asException(),
                Status.UNAVAILABLE.asRuntimeException(),
                told(Code.OUT_OF_RANGE, "CURSOR_EXPIRED"),
                Own(1),
                OwnEnd(2),
            )
        for (own in thrown) {
            for (most in listOf(0L, 1L)) {
                val script = Script(this, Stream(events("b", 1), silent = true))
                val request = streamEventsRequest { maxEvents = most }
                assertSame(own, assertFails { client.resumed(request, script::open).collect { throw own } })
                assertEquals(1, script.requests.size, "$own, $most")
            }
        }
        assertEquals(Duration.ZERO, currentTime.milliseconds)
    }

    @Test
    fun `closing the client ends the waits`() = runTest {
        val script = Script(this, Stream(end = told(Code.RESOURCE_EXHAUSTED, "SUBSCRIBER_LIMIT", 40.seconds)))
        launch {
            delay(1.seconds)
            client.close()
        }
        val error = assertFailsWith<HeraldException> { read(script) }
        assertEquals(Code.CANCELLED to "the client is closed (CANCELLED)", error.code to error.message)
        assertEquals(1.seconds, currentTime.milliseconds)
    }

    /** A response with a cursor, and beside it what this version knows nothing of: field 99. */
    private fun unknown(cursor: String): StreamEventsResponse {
        val bytes = ByteArrayOutputStream()
        val output = CodedOutputStream.newInstance(bytes)
        output.writeString(StreamEventsResponse.CURSOR_FIELD_NUMBER, cursor)
        output.writeString(99, "of a newer server")
        output.flush()
        return StreamEventsResponse.parseFrom(bytes.toByteArray())
    }

    @Test
    fun `what a newer server invents is handed over, and its cursor counts`() = runTest {
        val reason = closing("c", 7.seconds, canResume = true).toBuilder()
        reason.closing = reason.closing.toBuilder().setReasonValue(99).build()
        val script =
            Script(
                this,
                Stream(opened("a"), unknown("b")),
                Stream(StreamEventsResponse.parseFrom(reason.build().toByteArray())),
                Stream(events("d", 1)),
            )
        val came = client.resumed(streamEventsRequest { maxEvents = 1 }, script::open).toList()
        assertEquals(listOf("a", "b", "c", "d"), came.map { it.cursor })
        assertEquals(listOf("", "b", "c"), script.requests.map { it.afterCursor })
    }
}
