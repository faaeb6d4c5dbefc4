import Foundation
public import GRPCCore

/// A request to do something, which is carried out once by its request id.
public protocol Action: Sendable {
  /// A UUID; made by the client when it is empty.
  var requestID: String { get set }
}

extension GameV1_StartSessionRequest: Action {}
extension GameV1_PurchaseItemRequest: Action {}
extension GameV1_JoinGuildRequest: Action {}
extension GameV1_LeaveGuildRequest: Action {}
extension GameV1_GrantItemRequest: Action {}
extension GameV1_ConsumeItemRequest: Action {}
extension GameV1_RefundPurchaseRequest: Action {}

/// A client of a Herald server, over a client of gRPC that somebody runs.
public struct Herald<Transport: ClientTransport>: Sendable {
  /// What players do: the stub, whose methods `call` is given.
  public let game: GameV1_GameService.Client<Transport>
  /// The feed: the stub. See `tail` for one that resumes.
  public let feed: GameV1_EventFeedService.Client<Transport>

  /// A client of the server that the transport of `client` leads to.
  public init(wrapping client: GRPCClient<Transport>) {
    self.game = GameV1_GameService.Client(wrapping: client)
    self.feed = GameV1_EventFeedService.Client(wrapping: client)
  }

  /// Makes a call, and tries it again while that can help; an action always with the same request
  /// id, so that it is carried out once.
  ///
  ///     try await herald.call(request) { try await herald.game.purchaseItem($0, options: $1) }
  ///
  /// - Parameters:
  ///   - timeout: The deadline of each attempt.
  ///   - attempts: The most attempts, at least 1.
  /// - Throws: The `HeraldError` of the last attempt. When the task is cancelled, that of the
  ///   attempt that was under way, or a `CancellationError` between two.
  public func call<Request: Sendable, Response: Sendable>(
    _ request: Request,
    timeout: Duration = .seconds(5),
    attempts: Int = 5,
    _ method: @Sendable (Request, CallOptions) async throws -> Response
  ) async throws -> Response {
    var request = request
    var requestID = ""
    if var action = request as? any Action {
      if action.requestID.isEmpty { action.requestID = UUID().uuidString.lowercased() }
      requestID = action.requestID
      request = action as! Request
    }
    var options = CallOptions.bounded
    options.timeout = timeout
    var open = false
    var backoff = Backoff()
    var attempt = 1
    while true {
      do {
        return try await method(request, options)
      } catch let failure as RPCError {
        let error = HeraldError(failure, requestID: requestID, hadOpenOutcome: open)
        if Task.isCancelled || !error.isRetryable || attempt >= attempts { throw error }
        open = error.mayHaveHappened
        try await Task.sleep(for: backoff.wait(atLeast: error.retryDelay))
        attempt += 1
      }
    }
  }
}

extension CallOptions {
  /// Room for a catalogue of 10,000 items with the longest names, and for any batch of events.
  private static let maxMessageBytes = 16 * 1024 * 1024

  /// The defaults, with that room. The transport of NIO has bounded what comes by the bound for
  /// what is sent, 4 MiB unless told: so both are set.
  static var bounded: CallOptions {
    var options = CallOptions.defaults
    options.maxRequestMessageBytes = maxMessageBytes
    options.maxResponseMessageBytes = maxMessageBytes
    return options
  }
}
