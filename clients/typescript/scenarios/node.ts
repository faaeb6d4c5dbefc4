// The scenarios in Node, over gRPC. Talks to whoever runs it by lines of JSON.

import { createInterface } from "node:readline";
import { Herald } from "../src/index.js";
import { nodeTransport } from "../src/node.js";
import { scenarios } from "./scenarios.js";

const { HERALD_SERVER = "http://127.0.0.1:50051", HERALD_RUN = crypto.randomUUID() } = process.env;

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (line: unknown) => process.stdout.write(`${JSON.stringify(line)}\n`);

async function ask(what: string): Promise<void> {
  say({ ask: what });
  const { value, done } = await answers.next();
  if (done || JSON.parse(value).ok !== true) throw new Error(`${what} was not done: ${value}`);
}

await scenarios(new Herald(nodeTransport(HERALD_SERVER)), HERALD_RUN, ask, say);
// The connection is kept for a while, and so is stdin.
process.exit(0);
