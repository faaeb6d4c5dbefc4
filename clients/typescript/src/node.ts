import { createGrpcTransport, type GrpcTransportOptions } from "@connectrpc/connect-node";

/**
 * gRPC from Node. A connection is asked after 20 s of silence whether it is still there, and
 * given up when it does not answer within 10 s; without that, one that has died unnoticed would
 * be used again for minutes.
 */
export function nodeTransport(baseUrl: string, options?: Partial<GrpcTransportOptions>) {
  const alive = { pingIntervalMs: 20_000, pingTimeoutMs: 10_000 };
  return createGrpcTransport({ baseUrl, ...alive, ...options });
}
