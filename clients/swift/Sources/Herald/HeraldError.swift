public import GRPCCore
import GRPCProtobuf

/// Why a call failed. Decide on `code` and `reason`: texts may change.
public struct HeraldError: Error, Sendable, CustomStringConvertible {
  /// One field that the server has refused.
  public struct Violation: Sendable {
    /// Its path as in the schema, such as `item_id`.
    public let field: String
    /// What is wrong with it.
    public let description: String
  }

  /// The status code.
  public let code: RPCError.Code
  /// Herald's own reason, such as `VALIDATION_FAILED`; empty when the error is a library's or a
  /// proxy's.
  public let reason: String
  /// The text of the error.
  public let message: String
  /// All fields that were refused.
  public let violations: [Violation]
  /// More of the reason: `earliest_cursor` and `latest_cursor`, for example.
  public let metadata: [String: String]
  /// How long the server asks to wait before the next attempt; else zero.
  public let retryDelay: Duration
  /// Whether the same call may succeed later. An action is safely tried again only with the same
  /// request id.
  public let isRetryable: Bool
  /// The request id of the action; empty for calls that have none.
  public let requestID: String
  /// Whether the action may have been carried out all the same. Trying again with the same request
  /// id, or `getReceipt`, finds out.
  public let mayHaveHappened: Bool

  public var description: String { "\(message) (\(reason.isEmpty ? code.description : reason))" }

  private static let passing: Set = [
    "LOG_UNAVAILABLE",
    "OVERLOADED",
    "REQUEST_IN_PROGRESS",
    "STATE_BEHIND",
    "STREAM_DEADLINE",
    "SUBSCRIBER_LIMIT",
    "WRITE_OUTCOME_UNKNOWN",
  ]

  /// The codes with which a library or a proxy says that the call may succeed later.
  private static let passingCodes: Set<RPCError.Code> = [
    .unavailable, .deadlineExceeded, .internalError, .unknown, .cancelled,
  ]

  /// The reasons that leave open whether the action has been carried out.
  private static let open: Set = ["WRITE_OUTCOME_UNKNOWN", "REQUEST_IN_PROGRESS"]

  /// Reads what a call has failed with. `requestID` is that of the action, if there is one, and
  /// `hadOpenOutcome` whether an earlier attempt may have carried it out.
  init(_ failure: RPCError, requestID: String = "", hadOpenOutcome: Bool = false) {
    let details = (try? failure.unpackGoogleRPCStatus())?.details ?? []
    let info = details.compactMap(\.errorInfo).first { $0.domain == "herald" }
    let delay = details.compactMap(\.retryInfo).first?.delay
    self.code = failure.code
    self.reason = info?.reason ?? ""
    self.message = failure.message
    self.violations = details.compactMap(\.badRequest).flatMap(\.violations).map {
      Violation(field: $0.field, description: $0.violationDescription)
    }
    self.metadata = info?.metadata ?? [:]
    self.retryDelay = delay ?? .zero
    let open: Bool
    if let info {
      self.isRetryable =
        Self.passing.contains(info.reason) || delay != nil || failure.code == .unavailable
      open = Self.open.contains(info.reason)
    } else {
      self.isRetryable = Self.passingCodes.contains(failure.code)
      open = failure.code != .unimplemented
    }
    self.requestID = requestID
    self.mayHaveHappened = !requestID.isEmpty && (hadOpenOutcome || open)
  }
}
