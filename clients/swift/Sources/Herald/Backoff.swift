/// Waits that double from 250 ms to 15 s, each shortened by chance to between half and all of it,
/// so that clients that lost a server together do not come back together.
struct Backoff {
  private static let firstMilliseconds = 250.0
  private static let longestMilliseconds = 15_000.0

  /// The longest wait that a server can ask for: none may put a client to sleep for good.
  private static let longestAsked = Duration.seconds(300)

  private var next = Backoff.firstMilliseconds

  /// The wait before the next attempt, at least as long as `asked`.
  mutating func wait(atLeast asked: Duration = .zero) -> Duration {
    let own = Duration.milliseconds(next * Double.random(in: 0.5...1))
    next = min(next * 2, Backoff.longestMilliseconds)
    return max(own, Backoff.bounded(asked))
  }

  /// Starts from the shortest wait again.
  mutating func reset() {
    next = Backoff.firstMilliseconds
  }

  /// What a server asks for, as far as that goes.
  static func bounded(_ asked: Duration) -> Duration {
    min(asked, longestAsked)
  }
}
