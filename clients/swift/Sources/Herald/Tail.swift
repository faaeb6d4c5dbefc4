public import GRPCCore
import SwiftProtobuf

/// After so many intervals without a message a stream is dead: one may be late, two lost.
private let silentIntervals = 3

extension Herald {
  /// Streams one after the other as if they were one. Gives each response whole, with its cursor:
  /// deal with its events, then store the cursor, and start with it as `afterCursor` the next time.
  ///
  /// A stream that breaks, is closed by the server, or is silent for three heartbeat intervals, is
  /// followed by another one behind the newest cursor, for as long as it takes. Ends by itself
  /// after `maxEvents`, counted over all streams, and with `stopWhenCaughtUp`; cancel the task, or
  /// throw from `onResponse`, to end it sooner. The next response waits until that returns.
  ///
  /// - Parameter onReconnect: Told how long the wait before the next stream is, and why; no error
  ///   when the server has ended the stream in order.
  /// - Throws: What `onResponse` throws; a `HeraldError` that trying again cannot help, as with the
  ///   reasons `CURSOR_EXPIRED`, `CURSOR_AHEAD` and `FEED_EPOCH_CHANGED`; a `CancellationError`.
  public func tail(
    _ request: GameV1_StreamEventsRequest,
    onReconnect: @Sendable (Duration, HeraldError?) -> Void = { _, _ in },
    onResponse: @escaping @Sendable (GameV1_StreamEventsResponse) async throws -> Void
  ) async throws {
    let place = Place(request)
    let patience = silence(of: request)
    var backoff = Backoff()
    while true {
      try Task.checkCancellation()
      var delay = Duration.zero
      var error: HeraldError?
      do {
        switch try await read(place, patience, onResponse) {
        case .complete: return
        case .ended: break
        case .closed(let asked): delay = Backoff.bounded(asked)
        case .lost: throw HeraldError(lost)
        }
      } catch let failure as RPCError {
        try Task.checkCancellation()
        error = HeraldError(failure)
      } catch let failure as Reader {
        throw failure.error
      }
      let isComplete = await place.isComplete
      if isComplete { return }
      if let error, !error.isRetryable { throw error }
      let hasNews = await place.takeNews()
      if hasNews { backoff.reset() }
      // A closing without a delay, and an end without a closing, are waited for as errors are.
      if delay == .zero { delay = backoff.wait(atLeast: error?.retryDelay ?? .zero) }
      onReconnect(delay, error)
      try await Task.sleep(for: delay)
    }
  }

  /// Reads one stream to its end.
  private func read(
    _ place: Place,
    _ patience: Duration,
    _ onResponse: @escaping @Sendable (GameV1_StreamEventsResponse) async throws -> Void
  ) async throws -> Ending {
    let request = await place.begin()
    let feed = self.feed
    let options = CallOptions.bounded
    return try await withThrowingTaskGroup(of: Ending.self) { group in
      group.addTask {
        try await feed.streamEvents(request, options: options) { response in
          for try await message in response.messages {
            let ending = try await place.take(message)
            do {
              try await onResponse(message)
            } catch {
              throw Reader(error: error)
            }
            if let ending { return ending }
            await place.wait()
          }
          return .ended
        }
      }
      group.addTask {
        try await place.silence(of: patience)
        throw RPCError(code: .deadlineExceeded, message: "nothing came for \(patience)")
      }
      // The first to end ends the other.
      defer { group.cancelAll() }
      return try await group.next() ?? .ended
    }
  }
}

/// How a stream has ended without an error.
private enum Ending: Sendable {
  /// All that was asked for has come.
  case complete
  /// The server has ended it, and asks for this wait.
  case closed(Duration)
  /// The server has ended it, and says nothing.
  case ended
  /// The server has ended it, and it cannot be resumed.
  case lost
}

private let lost = RPCError(
  code: .failedPrecondition, message: "the server has closed the stream for good")

/// What the reader of a tail has thrown; nothing to be tried again.
private struct Reader: Error {
  let error: any Error
}

/// Where a tail is.
private actor Place {
  private var request: GameV1_StreamEventsRequest
  private let isEndless: Bool
  private var hasCaughtUp = false
  private var hasNews = false
  /// Since when a message is waited for; none while one is dealt with.
  private var waitsSince: ContinuousClock.Instant? = .now
  /// Whether the stream has been given up, so that nothing of it is taken any more.
  private var isDead = false

  init(_ request: GameV1_StreamEventsRequest) {
    self.request = request
    self.isEndless = request.maxEvents <= 0
  }

  /// Whether everything asked for has come. At 0 events left, another request would mean "no end".
  var isComplete: Bool {
    (!isEndless && request.maxEvents <= 0) || (request.stopWhenCaughtUp && hasCaughtUp)
  }

  /// What to open the next stream with.
  func begin() -> GameV1_StreamEventsRequest {
    waitsSince = .now
    isDead = false
    return request
  }

  /// Takes a message; how the stream ends, if it does with this one. Fails once the stream is
  /// dead: the message would be dealt with in a task that is cancelled, and its cursor used.
  func take(_ message: GameV1_StreamEventsResponse) throws -> Ending? {
    if isDead { throw RPCError(code: .deadlineExceeded, message: "the stream was given up") }
    waitsSince = nil
    if !message.cursor.isEmpty { request.afterCursor = message.cursor }
    switch message.response {
    case .batch(let batch):
      hasNews = true
      if !isEndless { request.maxEvents -= Int64(batch.events.count) }
    case .caughtUp:
      hasCaughtUp = true
    case .fellBehind:
      hasCaughtUp = false
    case .closing(let closing):
      if isComplete { return .complete }
      if !closing.resumable { return .lost }
      return .closed(closing.hasReconnectDelay ? Duration(closing.reconnectDelay) : .zero)
    default:
      break
    }
    return nil
  }

  /// The next message is waited for.
  func wait() {
    waitsSince = .now
  }

  /// Whether events have come since this was asked.
  func takeNews() -> Bool {
    defer { hasNews = false }
    return hasNews
  }

  /// Returns once a message has been waited for that long. The stream is dead from then on.
  func silence(of patience: Duration) async throws {
    while true {
      let now = ContinuousClock.now
      let due = (waitsSince ?? now) + patience
      if due <= now {
        isDead = true
        return
      }
      try await Task.sleep(until: due, clock: .continuous)
    }
  }
}

private func silence(of request: GameV1_StreamEventsRequest) -> Duration {
  let interval = request.hasHeartbeatInterval ? Duration(request.heartbeatInterval) : .seconds(15)
  return min(max(interval, .seconds(1)), .seconds(60)) * silentIntervals
}
