// swift run Example [PLAYER [EVENTS]]
//
// Buys, joins a guild, is refused, then follows the feed until so many events have come (1 unless
// told), from where the last run has stopped.

import Foundation
import GRPCCore
import GRPCNIOTransportHTTP2
import Herald

@main
struct Example {
  static func main() async throws {
    let arguments = CommandLine.arguments.dropFirst()
    let player = arguments.first ?? "alice"
    let events = arguments.dropFirst().first.flatMap { Int64($0) } ?? 1
    let environment = ProcessInfo.processInfo.environment
    let server = URL(string: environment["HERALD_SERVER"] ?? "http://127.0.0.1:50051")!

    // A connection that has died unnoticed is given up.
    let transport = try HTTP2ClientTransport.Posix(
      target: .dns(host: server.host()!, port: server.port ?? 80),
      transportSecurity: .plaintext,
      config: .defaults {
        $0.connection.keepalive = .init(
          time: .seconds(20), timeout: .seconds(10), allowWithoutCalls: false)
      }
    )
    try await withGRPCClient(transport: transport) { client in
      let herald = Herald(wrapping: client)
      try await play(herald, player)
      try await follow(herald, events, file: URL(filePath: "feed.cursor"))
    }
  }

  static func play(_ herald: Herald<some ClientTransport>, _ player: String) async throws {
    func buy(_ item: String) async throws -> GameV1_PurchaseItemResponse {
      let request = GameV1_PurchaseItemRequest.with {
        $0.playerID = player
        $0.itemID = item
      }
      return try await herald.call(request) {
        try await herald.game.purchaseItem($0, options: $1)
      }
    }
    let bought = try await buy("sword")
    print("bought a sword for \(bought.purchase.totalPrice): event \(bought.receipt.eventID)")
    let owls = GameV1_JoinGuildRequest.with {
      $0.playerID = player
      $0.guildID = "owls"
    }
    _ = try await herald.call(owls) { try await herald.game.joinGuild($0, options: $1) }
    do {
      _ = try await buy("dragon")
    } catch let error as HeraldError {
      for violation in error.violations {
        print("refused (\(error.reason)): \(violation.field) \(violation.description)")
      }
      // Only where the outcome is open: the same request id again, or getReceipt, finds out.
      if error.mayHaveHappened { print("request \(error.requestID) may have been carried out") }
    }
  }

  static func follow(
    _ herald: Herald<some ClientTransport>, _ events: Int64, file: URL
  ) async throws {
    let request = GameV1_StreamEventsRequest.with {
      if let cursor = try? String(contentsOf: file, encoding: .utf8) {
        $0.afterCursor = cursor
      } else {
        $0.startPosition = .earliest
      }
      $0.filter.eventTypes = ["guild_joined"]
      $0.maxEvents = events
    }
    try await herald.tail(request) { delay, error in
      print("back in \(delay): \(error?.description ?? "")")
    } onResponse: { response in
      for delivered in response.batch.events {
        print("\(delivered.event.playerID) joined \(delivered.event.guildJoined.guildID)")
      }
      // Only now: after a crash events may come again, and none is lost.
      try Data(response.cursor.utf8).write(to: file, options: .atomic)
    }
  }
}
