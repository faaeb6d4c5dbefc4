import {
  clone,
  create,
  type DescMessage,
  type DescMethodUnary,
  type DescService,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel as Level } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, makeAnyClient, type Transport } from "@connectrpc/connect";
import { Backoff, sleep } from "./backoff.js";
import { HeraldError } from "./error.js";
import {
  EventFeedService,
  GameService,
  type StreamEventsRequestSchema,
  type StreamEventsResponse,
} from "./gen/herald/game/v1/game_pb.js";
import { tail, type TailOptions } from "./tail.js";

/** The deadline of an attempt unless told, in milliseconds. */
const TIMEOUT_MS = 5_000;

/** How many attempts a call has unless told. */
const ATTEMPTS = 5;

/** How a call is made. */
export interface CallOptions {
  /** The deadline of each attempt, in milliseconds; 5,000 when absent. */
  timeoutMs?: number | undefined;
  /** The most attempts, at least 1; 5 when absent. */
  attempts?: number | undefined;
  /** Ends the call, and the waiting between attempts, with the code `Canceled`. */
  signal?: AbortSignal | undefined;
}

/** The calls of a service that have one response. */
export type Calls<S extends DescService> = {
  [M in keyof S["method"] as S["method"][M] extends DescMethodUnary
    ? M
    : never]: S["method"][M] extends DescMethodUnary<infer I, infer O>
    ? (request: MessageInitShape<I>, options?: CallOptions) => Promise<MessageShape<O>>
    : never;
};

/**
 * A client of a Herald server. Its calls are tried again while that can help, an action always
 * with the same request id, so that it is carried out once; they fail with a {@link HeraldError}.
 */
export class Herald {
  readonly #transport: Transport;
  /** What players do. */
  readonly game: Calls<typeof GameService>;
  /** The feed, call by call; see {@link Herald.tail} for the live one. */
  readonly feed: Calls<typeof EventFeedService>;

  /** A client of the server that the transport leads to. */
  constructor(transport: Transport) {
    this.#transport = transport;
    this.game = calls(transport, GameService);
    this.feed = calls(transport, EventFeedService);
  }

  /** The live feed, which resumes; see {@link tail}. */
  tail(
    request: MessageInitShape<typeof StreamEventsRequestSchema>,
    options?: TailOptions,
  ): AsyncGenerator<StreamEventsResponse, void, undefined> {
    return tail(this.#transport, request, options);
  }
}

function calls<S extends DescService>(transport: Transport, service: S): Calls<S> {
  return makeAnyClient(service, (method) =>
    method.methodKind === "unary"
      ? (request, options) => call(transport, method, request, options)
      : null,
  ) as Calls<S>;
}

async function call<I extends DescMessage, O extends DescMessage>(
  transport: Transport,
  method: DescMethodUnary<I, O>,
  request: MessageInitShape<I>,
  { timeoutMs = TIMEOUT_MS, attempts = ATTEMPTS, signal }: CallOptions = {},
): Promise<MessageShape<O>> {
  // A copy, so that what the caller has given can be used for another action.
  const message = clone(method.input, create(method.input, request));
  let action: { requestId: string; mayHaveHappened: boolean } | undefined;
  if (method.idempotency !== Level.NO_SIDE_EFFECTS) {
    const { requestId } = Object.assign(message, {
      requestId: (message as { requestId?: string }).requestId || uuid(),
    });
    action = { requestId, mayHaveHappened: false };
  }
  // What is no such message is a slip of the caller's, and fails at once.
  toBinary(method.input, message);
  const backoff = new Backoff();
  for (let attempt = 1; ; attempt++) {
    try {
      return (await transport.unary(method, signal, timeoutMs, undefined, message)).message;
    } catch (failure) {
      const error = new HeraldError(failure, action);
      if (signal?.aborted || !error.retryable || attempt >= attempts) throw error;
      if (action) action.mayHaveHappened = error.mayHaveHappened;
      await sleep(backoff.next(error.retryDelayMs), signal);
      if (signal?.aborted) {
        throw new HeraldError(new ConnectError("the caller ended it", Code.Canceled), action);
      }
    }
  }
}

/** A random UUID. `crypto.randomUUID` is there on loopback and with TLS only. */
function uuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
