// How many events have come: in all, by type, and a second. No <output>: what changes all the
// time is not to be read aloud all the time.

import { element, made } from "./dom";
import type { Drawing } from "./drawing";
import type { DeliveredEvent } from "./gen/game_pb";
import { EVENT_TYPES, typeName } from "./words";

/** How far back the sparkline reaches. */
const SECONDS = 60;

const total = element("total", HTMLElement);
const rate = element("rate", HTMLElement);
const sparkline = element("sparkline", SVGSVGElement);
const line = sparkline.querySelector("polyline")!;
const types = element("types", HTMLUListElement);

/** The box and the number beside each type. */
const entries = new Map<string, { box: HTMLInputElement; count: HTMLElement }>();

export class Stats {
  readonly #counts = new Map<string, number>();
  /** By second, the newest last; the last one is still going on. */
  readonly #seconds: number[] = new Array<number>(SECONDS + 1).fill(0);
  #total = 0;

  constructor(drawing: Drawing) {
    drawing.add(() => this.#draw());
    for (const type of EVENT_TYPES) addType(type);
    sparkline.setAttribute("viewBox", `0 0 ${SECONDS - 1} 1`);
    // Late timers, as in a tab that is not seen, must not stretch the seconds.
    let second = Math.floor(performance.now() / 1000);
    setInterval(() => {
      const now = Math.floor(performance.now() / 1000);
      if (now > second) this.#tick(now - second);
      second = now;
    }, 250);
    this.#drawSparkline();
  }

  take(events: DeliveredEvent[]): void {
    for (const { event } of events) {
      const type = event?.eventType ?? "";
      this.#counts.set(type, (this.#counts.get(type) ?? 0) + 1);
    }
    this.#total += events.length;
    this.#seconds[SECONDS]! += events.length;
  }

  reset(): void {
    this.#counts.clear();
    this.#total = 0;
  }

  #draw(): void {
    total.textContent = String(this.#total);
    for (const type of this.#counts.keys()) if (!entries.has(type)) addType(type);
    for (const [type, { count }] of entries) {
      const text = String(this.#counts.get(type) ?? 0);
      if (count.textContent !== text) count.textContent = text;
    }
  }

  #tick(seconds: number): void {
    const passed = Math.min(seconds, this.#seconds.length);
    this.#seconds.splice(0, passed);
    this.#seconds.push(...new Array<number>(passed).fill(0));
    this.#drawSparkline();
  }

  #drawSparkline(): void {
    const done = this.#seconds.slice(0, SECONDS);
    const most = Math.max(1, ...done);
    rate.textContent = String(done[SECONDS - 1]);
    line.setAttribute("points", done.map((n, x) => `${x},${1 - n / most}`).join(" "));
  }
}

/** The types whose boxes are ticked. */
export function tickedTypes(): string[] {
  return [...entries].filter(([, { box }]) => box.checked).map(([type]) => type);
}

export function tickTypes(ticked: string[]): void {
  for (const [type, { box }] of entries) box.checked = ticked.includes(type);
}

function addType(type: string): void {
  const item = made("li");
  const label = made("label");
  const box = made("input");
  box.type = "checkbox";
  box.value = type;
  const count = made("b", "0");
  const name = made("span", typeName(type), "type");
  item.dataset["type"] = type;
  label.append(box, name, count);
  item.append(label);
  types.append(item);
  entries.set(type, { box, count });
}
