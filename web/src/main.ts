// The page: the feed goes into a ring, the ring is shown as a list.

import "./page.css";
import { show } from "./detail";
import { element } from "./dom";
import { Drawing } from "./drawing";
import { Feed, type Filter, type Start, type State } from "./feed";
import { List } from "./list";
import { start as startPanel } from "./panel";
import { Ring } from "./ring";
import { Stats, tickedTypes, tickTypes } from "./stats";

const MINUTE_MS = 60_000;

/** The values of the field "Since". */
const STARTS: Record<string, Start> = {
  now: "now",
  "1m": { agoMs: MINUTE_MS },
  "15m": { agoMs: 15 * MINUTE_MS },
  "1h": { agoMs: 60 * MINUTE_MS },
  all: "all",
};

const stateName = element("state", HTMLElement);
const why = element("why", HTMLSpanElement);
const pause = element("pause", HTMLButtonElement);
const again = element("again", HTMLButtonElement);
const empty = element("empty", HTMLParagraphElement);
const since = element("start", HTMLSelectElement);
const player = element("filter-player", HTMLInputElement);
const guild = element("filter-guild", HTMLInputElement);

const ring = new Ring();
const drawing = new Drawing();
drawing.add(() => (empty.hidden = ring.next > ring.oldest));
const stats = new Stats(drawing);
const list = new List(
  ring,
  {
    box: element("list", HTMLDivElement),
    rows: element("rows", HTMLDivElement),
    newer: element("newer", HTMLButtonElement),
  },
  show,
  drawing,
);
const feed = new Feed({
  state: showState,
  events(events) {
    for (const delivered of events) if (delivered.event) ring.push({ kind: "event", delivered });
    stats.take(events);
    drawing.soon();
  },
  note(text) {
    ring.push({ kind: "note", text, time: Date.now() });
    drawing.soon();
  },
});

let state: State["name"] = "connecting";
/** What was applied last. */
let applied = { since: "", filter: "" };

function showState(now: State): void {
  state = now.name;
  document.body.dataset["state"] = state;
  stateName.textContent = state;
  why.textContent = now.why;
  pause.textContent = state === "paused" ? "Resume" : "Pause";
  pause.hidden = state === "stopped";
  again.hidden = state !== "stopped";
}

function filter(): Filter {
  return { types: tickedTypes(), player: player.value, guild: guild.value };
}

/** Shows what the form asks for, from the same beginning if only the filter has changed. */
function apply(): void {
  const now = { since: since.value, filter: JSON.stringify(filter()) };
  const narrowed = now.since === applied.since && now.filter !== applied.filter;
  applied = now;
  ring.clear();
  list.rewind();
  stats.reset();
  if (narrowed) feed.filter(filter());
  else feed.begin(STARTS[since.value] ?? "now", filter());
  remember();
}

/** Keeps the form in the address, so that it can be passed on. */
function remember(): void {
  const query = new URLSearchParams();
  if (since.value !== "1m") query.set("since", since.value);
  for (const type of tickedTypes()) query.append("type", type);
  if (player.value) query.set("player", player.value);
  if (guild.value) query.set("guild", guild.value);
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
}

function recall(): void {
  const query = new URLSearchParams(location.search);
  const asked = query.get("since") ?? "";
  if (asked in STARTS) since.value = asked;
  tickTypes(query.getAll("type"));
  player.value = query.get("player") ?? "";
  guild.value = query.get("guild") ?? "";
}

pause.addEventListener("click", () => (state === "paused" ? feed.resume() : feed.pause()));
again.addEventListener("click", apply);
element("filter", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  apply();
});
element("clear", HTMLButtonElement).addEventListener("click", () => {
  tickTypes([]);
  player.value = guild.value = "";
  apply();
});
// Where there is room beside the list, all is open.
const wide = matchMedia("(min-width: 56rem)").matches;
for (const id of ["filters", "acts"]) element(id, HTMLDetailsElement).open = wide;

recall();
apply();
startPanel();
