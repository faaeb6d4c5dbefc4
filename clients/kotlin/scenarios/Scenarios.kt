/**
 * Shows what the client does when things go wrong. Whatever runs it makes that happen when asked on
 * stdout, and answers on stdin, one JSON object a line; the results go to stdout too. HERALD_SERVER
 * is the server, HERALD_RUN a word that is in the names of all players.
 */
package scenarios

import com.google.gson.Gson
import com.google.protobuf.duration
import com.herald.client.DEFAULT_ATTEMPTS
import com.herald.client.DEFAULT_TIMEOUT
import com.herald.client.HeraldClient
import com.herald.client.HeraldException
import com.herald.client.tail
import com.herald.game.v1.GameServiceGrpcKt.getPlayerMethod
import com.herald.game.v1.GameServiceGrpcKt.joinGuildMethod
import com.herald.game.v1.GameServiceGrpcKt.purchaseItemMethod
import com.herald.game.v1.PurchaseItemResponse
import com.herald.game.v1.StartPosition.START_POSITION_EARLIEST
import com.herald.game.v1.StreamEventsRequest
import com.herald.game.v1.StreamEventsResponse
import com.herald.game.v1.copy
import com.herald.game.v1.eventFilter
import com.herald.game.v1.getPlayerRequest
import com.herald.game.v1.joinGuildRequest
import com.herald.game.v1.purchaseItemRequest
import com.herald.game.v1.streamEventsRequest
import io.grpc.Status.Code
import java.util.UUID
import kotlin.time.Duration
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.async
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout

/** What takes longer hangs. */
private val LONGEST = 60.seconds

private const val PURCHASES = 30

private val json = Gson()

private fun say(vararg line: Pair<String, Any?>) = println(json.toJson(mapOf(*line)))

/** Has something done to the server. */
private fun ask(what: String) {
    say("ask" to what)
    val answer = readln()
    check(json.fromJson(answer, Map::class.java)["ok"] == true) { "no answer to $what: $answer" }
}

/** Facts that are told also when what comes behind them fails. */
private typealias Facts = MutableMap<String, Any>

private class Scenarios(private val client: HeraldClient, private val run: String) {
    /** Of the retry, for the conflict. */
    private val requestId = UUID.randomUUID().toString()

    /** The newest place that is known, for the change of epoch. */
    private var cursor = ""

    val all: Map<String, suspend (Facts) -> Unit> =
        mapOf(
            "purchase" to ::purchase,
            "unknown item" to ::unknownItem,
            "retry" to ::retry,
            "conflict" to ::conflict,
            "feed filter" to ::feedFilter,
            "resume" to ::resume,
            "expired cursor" to ::expiredCursor,
            "deadline" to ::deadline,
            "epoch change" to ::epochChange,
        )

    private suspend fun buy(
        player: String,
        item: String,
        count: Int = 1,
        id: String = "",
        timeout: Duration = DEFAULT_TIMEOUT,
        attempts: Int = DEFAULT_ATTEMPTS,
    ): PurchaseItemResponse {
        val request = purchaseItemRequest {
            playerId = "$run-$player"
            itemId = item
            quantity = count
            requestId = id
        }
        return client.call(purchaseItemMethod, request, timeout, attempts).also { cursor = it.receipt.cursor }
    }

    private suspend fun purchase(facts: Facts) {
        val bought = buy("purchase", "sword", 2)
        facts["event_id"] = bought.receipt.eventId
        facts["request_id"] = bought.receipt.requestId
        val price = bought.purchase
        check(price.unitPrice > 0 && price.totalPrice == 2 * price.unitPrice) { "paid ${price.totalPrice}" }
        val has =
            client.call(
                getPlayerMethod,
                getPlayerRequest {
                    playerId = "$run-purchase"
                    atLeastCursor = bought.receipt.cursor
                },
            )
        val inventory = has.player.inventoryList.map { it.itemId to it.quantity }
        check(inventory == listOf("sword" to 2L)) { "has $inventory" }
    }

    private suspend fun unknownItem(facts: Facts) {
        val refused = refused(Code.INVALID_ARGUMENT, "VALIDATION_FAILED") { buy("purchase", "dragon") }
        check(refused.violations.map { it.field } == listOf("item_id") && !refused.mayHaveHappened) { "$refused" }
    }

    private suspend fun retry(facts: Facts) {
        val first = buy("retry", "knife", id = requestId).receipt
        facts["event_id"] = first.eventId
        val second = buy("retry", "knife", id = requestId).receipt
        check(second.eventId == first.eventId && second.replayed && !first.replayed) { "$first, $second" }
    }

    private suspend fun conflict(facts: Facts) {
        refused(Code.ALREADY_EXISTS, "REQUEST_ID_CONFLICT") { buy("retry", "horse", 3, id = requestId) }
    }

    private suspend fun feedFilter(facts: Facts) {
        buy("filter", "sword")
        val joined =
            client.call(
                joinGuildMethod,
                joinGuildRequest {
                    playerId = "$run-filter"
                    guildId = "owls"
                },
            )
        buy("filter", "knife")
        val request = streamEventsRequest {
            startPosition = START_POSITION_EARLIEST
            filter = eventFilter {
                eventTypes += "guild_joined"
                playerIds += "$run-filter"
            }
            stopWhenCaughtUp = true
        }
        facts["event_ids"] = client.tail(request).toList().flatMap(::idsOf)
        check(facts["event_ids"] == listOf(joined.receipt.eventId)) { "not only that of $joined" }
    }

    private suspend fun resume(facts: Facts) = coroutineScope {
        val request = streamEventsRequest {
            filter = eventFilter { playerIds += "$run-resume" }
            heartbeatInterval = duration { seconds = 1 }
            maxEvents = PURCHASES.toLong()
        }
        val opened = CompletableDeferred<Unit>()
        var streams = 0
        val read = async {
            val ids = mutableListOf<String>()
            client.tail(request).collect {
                if (it.hasOpened()) {
                    streams++
                    opened.complete(Unit)
                }
                ids += idsOf(it)
            }
            ids
        }
        opened.await()
        val bought = mutableListOf<String>()
        repeat(PURCHASES) {
            bought += buy("resume", "sword", attempts = 20).receipt.eventId
            if (bought.size == 10) ask("restart")
        }
        facts["event_ids"] = read.await()
        check(facts["event_ids"] == bought) { "bought $bought" }
        check(streams > 1) { "never reconnected" }
    }

    private suspend fun expiredCursor(facts: Facts) {
        val first = buy("expired", "sword").receipt
        buy("expired", "sword")
        ask("expire")
        val refused =
            refused(Code.OUT_OF_RANGE, "CURSOR_EXPIRED") { client.tail(behind(first.cursor, "expired")).first() }
        val third = buy("expired", "sword").receipt
        val request = behind(refused.metadata.getValue("earliest_cursor"), "expired").copy { maxEvents = 1 }
        facts["event_ids"] = client.tail(request).toList().flatMap(::idsOf)
        check(facts["event_ids"] == listOf(third.eventId)) { "not only ${third.eventId}" }
    }

    private suspend fun deadline(facts: Facts) {
        val id = UUID.randomUUID().toString()
        ask("pause")
        try {
            val refused =
                refused(Code.DEADLINE_EXCEEDED, "WRITE_OUTCOME_UNKNOWN") {
                    buy("deadline", "horse", id = id, timeout = 2.seconds, attempts = 1)
                }
            check(refused.mayHaveHappened && refused.requestId == id) { "$refused" }
        } finally {
            ask("resume")
        }
        facts["request_id"] = id
        facts["event_id"] = buy("deadline", "horse", id = id).receipt.eventId
    }

    private suspend fun epochChange(facts: Facts) {
        ask("replace")
        withTimeout(LONGEST / 4) {
            refused(Code.FAILED_PRECONDITION, "FEED_EPOCH_CHANGED") { client.tail(behind(cursor, "epoch")).first() }
        }
    }

    private fun behind(place: String, player: String): StreamEventsRequest = streamEventsRequest {
        afterCursor = place
        filter = eventFilter { playerIds += "$run-$player" }
    }
}

private fun idsOf(response: StreamEventsResponse) = response.batch.eventsList.map { it.event.eventId }

/** The error of what has to fail in this way. */
private suspend fun refused(code: Code, reason: String, act: suspend () -> Any): HeraldException {
    val said =
        try {
            act()
        } catch (failed: HeraldException) {
            if (failed.code == code && failed.reason == reason) return failed
            failed
        }
    error("not $code, $reason, but $said")
}

fun main() {
    HeraldClient(System.getenv("HERALD_SERVER")).use { client ->
        for ((name, scenario) in Scenarios(client, System.getenv("HERALD_RUN")).all) {
            val facts = sortedMapOf<String, Any>()
            val why = runBlocking { runCatching { withTimeout(LONGEST) { scenario(facts) } } }.exceptionOrNull()
            say("scenario" to name, "passed" to (why == null), "why" to (why?.toString() ?: ""), "facts" to facts)
        }
    }
}
