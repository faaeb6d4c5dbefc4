// The clients of Herald's services, and what a failed call tells.

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { EventFeedService, GameService } from "./gen/game_pb";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb";

const transport = createGrpcWebTransport({ baseUrl: location.origin });
export const events = createClient(EventFeedService, transport);
export const game = createClient(GameService, transport);

/** Why a call failed. */
export interface Failure {
  /** The reason of Herald's ErrorInfo; empty when the error is not Herald's. */
  reason: string;
  text: string;
  violations: { field: string; description: string }[];
  /** Whether the same call may succeed later. */
  retryable: boolean;
  /** How long the server asks to wait before that. */
  retryDelayMs: number;
}

/** The reasons with which the same call may succeed later; see proto/game.proto. */
const RETRYABLE = new Set([
  "LOG_UNAVAILABLE",
  "OVERLOADED",
  "REQUEST_IN_PROGRESS",
  "STATE_BEHIND",
  "STREAM_DEADLINE",
  "SUBSCRIBER_LIMIT",
  "WRITE_OUTCOME_UNKNOWN",
]);

/** What a proxy, or Herald's own check of the origin, refuses for good. */
const REFUSED = new Set([
  Code.InvalidArgument,
  Code.PermissionDenied,
  Code.Unauthenticated,
  Code.Unimplemented,
]);

export function failure(error: unknown): Failure {
  const status = ConnectError.from(error);
  const info = status.findDetails(ErrorInfoSchema).find((info) => info.domain === "herald");
  const delay = status.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const violations = status.findDetails(BadRequestSchema).flatMap((bad) => bad.fieldViolations);
  const retryDelayMs = delay ? durationMs(delay) : 0;
  const retryable = info
    ? RETRYABLE.has(info.reason) || retryDelayMs > 0
    : !REFUSED.has(status.code);
  const text =
    !info && status.code === Code.PermissionDenied
      ? "this page may not call: start the server with --cors and the page's origin"
      : status.rawMessage || "the server cannot be reached";
  return { reason: info?.reason ?? "", text, violations, retryable, retryDelayMs };
}
