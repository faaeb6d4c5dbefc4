// The same in a page, which follows the feed for as long as it is open.

import { Herald } from "../src/index.js";
import { webTransport } from "../src/web.js";
import { follow, play } from "./play.js";

const said = document.querySelector<HTMLElement>("#said")!;
const server = document.querySelector<HTMLInputElement>("#server")!;
const player = document.querySelector<HTMLInputElement>("#player")!;

/** As text, since what others have written is in it. */
const log = (line: string) => said.append(`${line}\n`);
const failed = (error: unknown) => log(String(error));

let following = new AbortController();
function begin(): void {
  following.abort();
  following = new AbortController();
  const key = `cursor of ${server.value}`;
  const cursor = {
    load: () => localStorage.getItem(key) ?? "",
    store: (cursor: string) => localStorage.setItem(key, cursor),
  };
  const { signal } = following;
  follow(new Herald(webTransport(server.value)), cursor, { events: 0, signal }, log).catch(failed);
}

server.value = new URLSearchParams(location.search).get("server") ?? "http://127.0.0.1:50051";
server.addEventListener("change", begin);
document.querySelector("form")!.addEventListener("submit", (event) => {
  event.preventDefault();
  play(new Herald(webTransport(server.value)), player.value, log).catch(failed);
});
begin();
