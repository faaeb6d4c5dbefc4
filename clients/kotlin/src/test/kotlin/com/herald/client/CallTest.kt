package com.herald.client

import com.google.protobuf.ByteString
import com.herald.client.status.BadRequestKt.fieldViolation
import com.herald.client.status.badRequest
import com.herald.client.status.errorInfo
import com.herald.game.v1.GameServiceGrpcKt.GameServiceCoroutineImplBase
import com.herald.game.v1.GameServiceGrpcKt.purchaseItemMethod
import com.herald.game.v1.GetCatalogRequest
import com.herald.game.v1.GetReceiptRequest
import com.herald.game.v1.PurchaseItemRequest
import com.herald.game.v1.PurchaseItemResponse
import com.herald.game.v1.StreamEventsRequest
import io.grpc.Attributes
import io.grpc.ClientStreamTracer.StreamInfo
import io.grpc.Grpc
import io.grpc.InsecureServerCredentials
import io.grpc.Metadata
import io.grpc.ServerCall
import io.grpc.ServerCallHandler
import io.grpc.ServerInterceptor
import io.grpc.Status
import io.grpc.Status.Code
import io.grpc.StatusException
import io.grpc.okhttp.OkHttpChannelBuilder
import io.grpc.okhttp.OkHttpServerBuilder
import java.io.File
import java.lang.reflect.Modifier
import java.net.InetAddress
import java.net.InetSocketAddress
import java.net.ServerSocket
import java.net.SocketAddress
import java.util.concurrent.Executors
import kotlin.test.AfterTest
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertNotEquals
import kotlin.test.assertNull
import kotlin.test.assertTrue
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.minutes
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.awaitCancellation
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.test.currentTime
import kotlinx.coroutines.test.runTest

class CallTest {
    private val buy = PurchaseItemRequest.getDefaultInstance()
    private val ids = mutableListOf<String?>()
    /** Never connected. */
    private val client = HeraldClient("http://127.0.0.1:1")

    @AfterTest
    fun close() = client.close()

    /** A call of a server that answers each attempt with the next error; null is none. */
    private suspend fun call(request: Any, vararg answers: StatusException?) {
        val left = ArrayDeque(answers.asList())
        client.attempt(request, answers.size) { named, reach ->
            ids += requestIdOf(named)
            reach.newClientStreamTracer(StreamInfo.newBuilder().build(), Metadata())
                .streamCreated(Attributes.EMPTY, Metadata())
            left.removeFirst()?.let { throw it }
        }
    }

    private suspend fun fails(request: Any, vararg answers: StatusException) =
        assertFailsWith<HeraldException> { call(request, *answers) }

    @OptIn(ExperimentalCoroutinesApi::class)
    @Test
    fun `an action keeps its request id through all attempts`() = runTest {
        call(
            buy,
            Status.UNAVAILABLE.asException(),
            told(Code.RESOURCE_EXHAUSTED, "OVERLOADED", 20.seconds),
            told(Code.UNAVAILABLE, "A_NEWER_ONE"),
            told(Code.UNAVAILABLE, "OVERLOADED", of = "a mesh"),
            null,
        )
        assertEquals(5, ids.size)
        assertEquals(1, ids.toSet().size)
        assertEquals(36, ids[0]?.length)
        // The wait that was asked for, and three own ones.
        assertTrue(currentTime.milliseconds in 21.seconds..24.seconds, "$currentTime")
    }

    @Test
    fun `every action is given a request id, and nothing else is`() {
        val classes = File(PurchaseItemRequest::class.java.getResource("PurchaseItemRequest.class")!!.toURI()).parentFile
        val actions =
            classes.list()!!.filter { it.endsWith("Request.class") }
                .map { Class.forName("com.herald.game.v1." + it.removeSuffix(".class")) }
                .filter { type -> !Modifier.isAbstract(type.modifiers) && type.methods.any { it.name == "getValidateOnly" } }
        assertTrue(actions.size >= 7, "$actions")
        for (action in actions) {
            val named = withRequestId(action.getMethod("getDefaultInstance").invoke(null), "an id")
            assertEquals("an id", requestIdOf(named), "$action")
        }
        assertNull(requestIdOf(GetReceiptRequest.getDefaultInstance()))
    }

    @Test
    fun `only what can be helped is tried again`() = runTest {
        for (answer in
            listOf(
                told(Code.INVALID_ARGUMENT, "VALIDATION_FAILED"),
                told(Code.ALREADY_EXISTS, "REQUEST_ID_CONFLICT"),
                told(Code.INTERNAL, "A_NEWER_ONE"),
                told(Code.RESOURCE_EXHAUSTED, "OVERLOADED", of = "a mesh"),
                Status.RESOURCE_EXHAUSTED.asException(),
                Status.UNIMPLEMENTED.asException(),
            )) {
            ids.clear()
            fails(buy, answer, answer)
            assertEquals(1, ids.size, "$answer")
        }
    }

    @Test
    fun `an unknown reason is tried again where the server says when, be it at once`() = runTest {
        call(buy, told(Code.ABORTED, "A_NEWER_ONE", 0.seconds), null)
        assertEquals(2, ids.size)
    }

    @Test
    fun `what a later attempt says is not about the ones before`() = runTest {
        val refused = told(Code.UNAVAILABLE, "LOG_UNAVAILABLE")
        val unknown = told(Code.DEADLINE_EXCEEDED, "WRITE_OUTCOME_UNKNOWN")
        val silent = Status.DEADLINE_EXCEEDED.asException()
        assertFalse(fails(buy, refused, refused).mayHaveHappened)
        assertTrue(fails(buy, unknown, refused).mayHaveHappened)
        assertTrue(fails(buy, silent, refused).mayHaveHappened)
        // There is no action.
        assertFalse(fails(GetCatalogRequest.getDefaultInstance(), silent, refused).mayHaveHappened)
    }

    @Test
    fun `a server that is not there has carried out nothing`() = runBlocking {
        val port = ServerSocket(0, 1, InetAddress.getLoopbackAddress()).use { it.localPort }
        HeraldClient("http://127.0.0.1:$port").use { client ->
            val error = assertFailsWith<HeraldException> { client.call(purchaseItemMethod, buy, attempts = 2) }
            assertEquals(Code.UNAVAILABLE, error.code)
            assertFalse(error.mayHaveHappened)
        }
    }

    @Test
    fun `a change of network has the next call make a connection`() = runBlocking {
        val entered = Channel<SocketAddress?>(1)
        val address =
            object : ServerInterceptor {
                override fun <Q, A> interceptCall(call: ServerCall<Q, A>, headers: Metadata, next: ServerCallHandler<Q, A>): ServerCall.Listener<Q> {
                    entered.trySend(call.attributes.get(Grpc.TRANSPORT_ATTR_REMOTE_ADDR))
                    return next.startCall(call, headers)
                }
            }
        val game = object : GameServiceCoroutineImplBase() {
            override suspend fun purchaseItem(request: PurchaseItemRequest) = PurchaseItemResponse.getDefaultInstance()
        }
        val anyPort = InetSocketAddress(InetAddress.getLoopbackAddress(), 0)
        val server =
            OkHttpServerBuilder.forPort(anyPort, InsecureServerCredentials.create())
                .addService(game).intercept(address).build().start()
        try {
            HeraldClient("http://127.0.0.1:${server.port}").use { client ->
                client.call(purchaseItemMethod, buy)
                val first = entered.receive()
                client.call(purchaseItemMethod, buy)
                assertEquals(first, entered.receive())
                client.networkChanged()
                client.call(purchaseItemMethod, buy)
                assertNotEquals(first, entered.receive())
            }
        } finally {
            server.shutdownNow()
        }
    }

    @Test
    fun `what reached a server that then died may have happened`() = runBlocking {
        val entered = CompletableDeferred<Unit>()
        val silent =
            object : GameServiceCoroutineImplBase() {
                override suspend fun purchaseItem(request: PurchaseItemRequest): PurchaseItemResponse {
                    entered.complete(Unit)
                    awaitCancellation()
                }
            }
        val anyPort = InetSocketAddress(InetAddress.getLoopbackAddress(), 0)
        val server =
            OkHttpServerBuilder.forPort(anyPort, InsecureServerCredentials.create()).addService(silent).build().start()
        HeraldClient("http://127.0.0.1:${server.port}").use { client ->
            launch {
                entered.await()
                server.shutdownNow()
            }
            val error =
                assertFailsWith<HeraldException> { client.call(purchaseItemMethod, buy, timeout = 1.minutes, attempts = 1) }
            assertNull(error.reason)
            assertTrue(error.mayHaveHappened)
        }
    }

    @Test
    fun `a closed client is final`() = runBlocking {
        // With threads that end as those of a channel do, a while after it is closed.
        val threads = Executors.newCachedThreadPool()
        val client = HeraldClient(OkHttpChannelBuilder.forAddress("127.0.0.1", 1).usePlaintext().executor(threads).build())
        client.close()
        threads.shutdownNow()
        val named = buy.toBuilder().setRequestId("one").build()
        val error = assertFailsWith<HeraldException> { client.call(purchaseItemMethod, named) }
        assertEquals(Code.CANCELLED to "the client is closed (CANCELLED)", error.code to error.message)
        assertEquals("one", error.requestId)
        assertFalse(error.mayHaveHappened)
        val ofTail = assertFailsWith<HeraldException> { client.tail(StreamEventsRequest.getDefaultInstance()).toList() }
        assertEquals(error.message, ofTail.message)
    }

    @Test
    fun `a call that the closing of the client ends may have happened`() = runTest {
        val error =
            assertFailsWith<HeraldException> {
                client.attempt(buy, attempts = 1) { _, reach ->
                    reach.newClientStreamTracer(StreamInfo.newBuilder().build(), Metadata())
                        .streamCreated(Attributes.EMPTY, Metadata())
                    client.close()
                    throw Status.UNAVAILABLE.asException()
                }
            }
        assertEquals(Code.CANCELLED, error.code)
        assertTrue(error.mayHaveHappened)
    }

    @Test
    fun `the details of an error are read in full, and no other ones`() = runTest {
        val info = errorInfo {
            domain = "herald"
            reason = "VALIDATION_FAILED"
            metadata["a"] = "b"
        }
        val request = badRequest {
            fieldViolations += fieldViolation {
                field = "item_id"
                description = "not sold here"
            }
        }
        val foreign = detail("Help", info)
        val error = fails(buy, failed(Code.INVALID_ARGUMENT, foreign, detail("ErrorInfo", info), detail("BadRequest", request)))
        assertEquals("VALIDATION_FAILED", error.reason)
        assertEquals(mapOf("a" to "b"), error.metadata)
        assertEquals(listOf(Violation("item_id", "not sold here")), error.violations)
        assertEquals("told by a test (VALIDATION_FAILED); item_id: not sold here", error.message)

        val damaged = detail("ErrorInfo", info).toBuilder().setValue(ByteString.copyFromUtf8("\u0001")).build()
        assertNull(fails(buy, failed(Code.INTERNAL, damaged)).reason)
    }

    @Test
    fun `an address that is none is refused`() {
        for (endpoint in listOf("", "127.0.0.1:50051", "ftp://host", "http://", "http://a b")) {
            assertFailsWith<IllegalArgumentException>(endpoint) { HeraldClient(endpoint) }
        }
    }
}
