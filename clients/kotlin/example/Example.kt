/**
 * Buys, is refused, joins a guild, and follows the guilds of all players from where the last run
 * ended; the first run from now on.
 */
package example

import com.herald.client.HeraldClient
import com.herald.client.HeraldException
import com.herald.client.tail
import com.herald.game.v1.GameServiceGrpcKt.joinGuildMethod
import com.herald.game.v1.GameServiceGrpcKt.purchaseItemMethod
import com.herald.game.v1.eventFilter
import com.herald.game.v1.joinGuildRequest
import com.herald.game.v1.purchaseItemRequest
import com.herald.game.v1.streamEventsRequest
import java.io.File
import java.nio.file.Files
import java.nio.file.StandardCopyOption.REPLACE_EXISTING
import kotlinx.coroutines.runBlocking

private suspend fun buy(client: HeraldClient, player: String) {
    val bought =
        client.call(
            purchaseItemMethod,
            purchaseItemRequest {
                playerId = player
                itemId = "sword"
                quantity = 2
            },
        )
    with(bought.purchase) { println("bought $quantity $itemId for $totalPrice $currencyCode") }
    try {
        client.call(
            purchaseItemMethod,
            purchaseItemRequest {
                playerId = player
                itemId = "dragon"
            },
        )
    } catch (refused: HeraldException) {
        println("refused, ${refused.reason}")
        refused.violations.forEach { println("  ${it.field}: ${it.description}") }
    }
}

private suspend fun follow(client: HeraldClient, player: String, file: File, events: Long) {
    val request = streamEventsRequest {
        if (file.exists()) afterCursor = file.readText()
        filter = eventFilter { eventTypes += "guild_joined" }
        maxEvents = events
    }
    var joined = false
    client.tail(request).collect { response ->
        if (response.hasOpened() && !joined) {
            // Whoever joins from now on is in the feed.
            joined = true
            client.call(
                joinGuildMethod,
                joinGuildRequest {
                    playerId = player
                    guildId = "owls"
                },
            )
        }
        for (delivered in response.batch.eventsList) {
            println("${delivered.event.playerId} is now in ${delivered.event.guildJoined.guildId}")
        }
        // Its events are dealt with.
        store(file, response.cursor)
    }
}

/** Replaces the file as a whole. */
private fun store(file: File, cursor: String) {
    val new = File("$file.new")
    new.writeText(cursor)
    Files.move(new.toPath(), file.toPath(), REPLACE_EXISTING)
}

/** Usage: `[--player NAME] [--events N] [--cursor-file PATH]`; without N it follows for good. */
fun main(arguments: Array<String>) {
    val told = arguments.asList().chunked(2) { (name, value) -> name to value }.toMap()
    val player = told["--player"] ?: "ann"
    val file = File(told["--cursor-file"] ?: "example.cursor")
    val events = told["--events"]?.toLong() ?: 0
    HeraldClient(System.getenv("HERALD_SERVER") ?: "http://127.0.0.1:50051").use { client ->
        runBlocking {
            buy(client, player)
            follow(client, player, file, events)
        }
    }
}
