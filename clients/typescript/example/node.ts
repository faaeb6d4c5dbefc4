// node dist/example/node.js [--player NAME] [--events N] [--cursor FILE]
//
// Plays, then follows the feed until N events have come (1 unless told).

import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { Herald } from "../src/index.js";
import { nodeTransport } from "../src/node.js";
import { follow, play } from "./play.js";

const { values } = parseArgs({
  options: {
    player: { type: "string", default: "alice" },
    events: { type: "string", default: "1" },
    cursor: { type: "string", default: "feed.cursor" },
  },
});
const { player, events, cursor: file } = values;
const count = Number(events);
if (!Number.isSafeInteger(count) || count < 1) throw new Error("--events is a number from 1 on");

const herald = new Herald(nodeTransport(process.env.HERALD_SERVER ?? "http://127.0.0.1:50051"));
await play(herald, player, console.log);
await follow(
  herald,
  {
    load: () => (existsSync(file) ? readFileSync(file, "utf8") : ""),
    store(cursor) {
      // Whole or not at all, also when this ends in the middle.
      writeFileSync(`${file}.new`, cursor);
      renameSync(`${file}.new`, file);
    },
  },
  { events: count },
  console.log,
);
// The connection is kept for a while.
process.exit(0);
