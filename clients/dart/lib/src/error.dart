import 'package:grpc/grpc_or_grpcweb.dart' show GrpcError, StatusCode;
import 'package:grpc/protos.dart' show BadRequest, ErrorInfo, RetryInfo;

/// The reasons with which the same call may succeed later.
const _passing = {
  'LOG_UNAVAILABLE',
  'OVERLOADED',
  'REQUEST_IN_PROGRESS',
  'STATE_BEHIND',
  'STREAM_DEADLINE',
  'SUBSCRIBER_LIMIT',
  'WRITE_OUTCOME_UNKNOWN',
};

/// The codes with which a library or a proxy says that the call may succeed later.
const _passingCodes = {
  StatusCode.unavailable,
  StatusCode.deadlineExceeded,
  StatusCode.internal,
  StatusCode.unknown,
  StatusCode.cancelled,
};

/// The reasons that leave open whether the action has been carried out.
const _open = {'WRITE_OUTCOME_UNKNOWN', 'REQUEST_IN_PROGRESS'};

/// Why a call failed. Decide on [code] and [reason]: texts may change.
class HeraldError implements Exception {
  HeraldError._(
    this.code,
    this.reason,
    this.message,
    this.violations,
    this.metadata,
    this.retryDelay,
    this.retryable,
    this.requestId,
    this.mayHaveHappened,
  );

  /// Reads what a call has failed with. [requestId] is that of the action, if there is one, and
  /// [hadOpenOutcome] whether an earlier attempt may have carried it out.
  factory HeraldError.of(GrpcError failure, {String requestId = '', bool hadOpenOutcome = false}) {
    final details = failure.details ?? const [];
    final info = details.whereType<ErrorInfo>().where((i) => i.domain == 'herald').firstOrNull;
    final retry = details.whereType<RetryInfo>().firstOrNull?.retryDelay;
    final reason = info?.reason ?? '';
    final open = info != null
        ? _open.contains(reason)
        : failure.code != StatusCode.unimplemented;
    return HeraldError._(
      failure.code,
      reason,
      failure.message ?? '',
      [
        for (final bad in details.whereType<BadRequest>())
          for (final violation in bad.fieldViolations)
            (field: violation.field_1, description: violation.description),
      ],
      Map.unmodifiable(info?.metadata ?? const <String, String>{}),
      retry == null
          ? Duration.zero
          : Duration(seconds: retry.seconds.toInt(), microseconds: retry.nanos ~/ 1000),
      info != null
          ? _passing.contains(reason) || retry != null || failure.code == StatusCode.unavailable
          : _passingCodes.contains(failure.code),
      requestId,
      requestId.isNotEmpty && (hadOpenOutcome || open),
    );
  }

  /// The status code, one of [StatusCode].
  final int code;

  /// Herald's own reason, such as `VALIDATION_FAILED`; empty when the error is a library's or a
  /// proxy's.
  final String reason;

  /// The text of the error.
  final String message;

  /// All fields that were refused: their paths as in the schema, and what is wrong.
  final List<({String field, String description})> violations;

  /// More of the reason: `earliest_cursor` and `latest_cursor`, for example.
  final Map<String, String> metadata;

  /// How long the server asks to wait before the next attempt; else zero.
  final Duration retryDelay;

  /// Whether the same call may succeed later. An action is safely tried again only with the same
  /// request id.
  final bool retryable;

  /// The request id of the action; empty for calls that have none.
  final String requestId;

  /// Whether the action may have been carried out all the same. Trying again with the same request
  /// id, or `getReceipt`, finds out.
  final bool mayHaveHappened;

  @override
  String toString() => '$message (${reason.isEmpty ? StatusCode.name(code) : reason})';
}
