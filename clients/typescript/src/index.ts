export { type CallOptions, type Calls, Herald } from "./client.js";
export { HeraldError, type Violation } from "./error.js";
export { tail, type TailOptions } from "./tail.js";
export * from "./gen/herald/game/v1/game_pb.js";
