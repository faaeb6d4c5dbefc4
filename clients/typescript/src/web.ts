import { createGrpcWebTransport, type GrpcWebTransportOptions } from "@connectrpc/connect-web";

/**
 * gRPC-web from a page. Where the page is of another origin than the server, that has to let it:
 * `herald serve --cors https://game.example`.
 */
export function webTransport(baseUrl: string, options?: Partial<GrpcWebTransportOptions>) {
  return createGrpcWebTransport({ baseUrl, ...options });
}
