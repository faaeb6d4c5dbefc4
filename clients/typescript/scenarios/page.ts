// The scenarios in a browser, over gRPC-web. Whoever has opened the page calls `runScenarios`,
// and gives it `askOutside` and `tellOutside`.

import { Herald } from "../src/index.js";
import { webTransport } from "../src/web.js";
import { type Ask, type Result, scenarios } from "./scenarios.js";

declare global {
  var askOutside: Ask;
  var tellOutside: (result: Result) => Promise<void>;
  var runScenarios: (server: string, run: string) => Promise<void>;
}

globalThis.runScenarios = (server, run) =>
  scenarios(new Herald(webTransport(server)), run, askOutside, (result) => {
    void tellOutside(result);
  });
