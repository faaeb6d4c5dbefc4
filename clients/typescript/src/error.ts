import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.js";

/** The reasons with which the same call may succeed later. */
const PASSING = new Set([
  "LOG_UNAVAILABLE",
  "OVERLOADED",
  "REQUEST_IN_PROGRESS",
  "STATE_BEHIND",
  "STREAM_DEADLINE",
  "SUBSCRIBER_LIMIT",
  "WRITE_OUTCOME_UNKNOWN",
]);

/** The codes with which a library or a proxy says that the call may succeed later. */
const PASSING_CODES = new Set([
  Code.Unavailable,
  Code.DeadlineExceeded,
  Code.Internal,
  Code.Unknown,
  Code.Canceled,
]);

/** The reasons that leave open whether the action has been carried out. */
const OPEN = new Set(["WRITE_OUTCOME_UNKNOWN", "REQUEST_IN_PROGRESS"]);

/** What Node says when it has not reached a server, so that nothing was done. */
const UNREACHED = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN"]);

/** One field that the server has refused. */
export interface Violation {
  /** Its path as in the schema, such as `item_id`. */
  field: string;
  /** What is wrong with it. */
  description: string;
}

/** Why a call failed. Decide on `code` and `reason`: texts may change. */
export class HeraldError extends Error {
  override readonly name = "HeraldError";
  /** The status code. */
  readonly code: Code;
  /** Herald's own reason, such as `VALIDATION_FAILED`; empty when the error is a library's or a
   * proxy's. */
  readonly reason: string;
  /** All fields that were refused. */
  readonly violations: readonly Violation[];
  /** More of the reason: `earliest_cursor` and `latest_cursor`, for example. */
  readonly metadata: Readonly<Record<string, string>>;
  /** How long the server asks to wait before the next attempt, in milliseconds; else 0. */
  readonly retryDelayMs: number;
  /** Whether the same call may succeed later. An action is safely tried again only with the same
   * request id. */
  readonly retryable: boolean;
  /** The request id of the action; empty for calls that have none. */
  readonly requestId: string;
  /** Whether the action may have been carried out all the same, in this attempt or an earlier
   * one. Trying again with the same request id, or GetReceipt, finds out. */
  readonly mayHaveHappened: boolean;

  /** Reads what a call of Connect has failed with. `action` is what was to be carried out, if
   * anything. */
  constructor(failure: unknown, action?: { requestId: string; mayHaveHappened: boolean }) {
    const status = ConnectError.from(failure);
    const info = status.findDetails(ErrorInfoSchema).find((info) => info.domain === "herald");
    const reason = info?.reason ?? "";
    const code = info || status.cause === undefined ? status.code : meant(status.code);
    super(`${status.rawMessage || "no answer"} (${reason || Code[code]})`, { cause: failure });
    const delay = status.findDetails(RetryInfoSchema)[0]?.retryDelay;
    this.code = code;
    this.reason = reason;
    this.violations = status
      .findDetails(BadRequestSchema)
      .flatMap((bad) => bad.fieldViolations)
      .map(({ field, description }) => ({ field, description }));
    this.metadata = info?.metadata ?? {};
    this.retryDelayMs = delay ? durationMs(delay) : 0;
    this.retryable = info
      ? PASSING.has(reason) || delay !== undefined || code === Code.Unavailable
      : PASSING_CODES.has(code);
    this.requestId = action?.requestId ?? "";
    const { code: cause } = (status.cause ?? {}) as { code?: string };
    const left = code !== Code.Unimplemented && !UNREACHED.has(cause ?? "");
    const open = info ? OPEN.has(reason) : left;
    this.mayHaveHappened = action !== undefined && (action.mayHaveHappened || open);
  }
}

/** What a code means that Connect has given to a failure of its own. A server's has no cause. */
function meant(code: Code): Code {
  // A connection that is reset is no answer.
  if (code === Code.Aborted) return Code.Unavailable;
  // A proxy has sent details that cannot be decoded: Connect drops the status beside them.
  if (code === Code.DataLoss) return Code.Unknown;
  return code;
}
