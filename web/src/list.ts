// The list of rows, newest first. Only what can be seen is in the document.

import { made } from "./dom";
import type { Drawing } from "./drawing";
import type { Ring, Row } from "./ring";
import { clock, typeName, words } from "./words";

/** Rows beyond each edge of what can be seen, so that scrolling shows no holes. */
const MARGIN = 6;

/** An element that shows one row after the other. */
class Line {
  readonly root = made("div");
  readonly #time = made("time");
  readonly #type = made("span", "", "type");
  readonly #player = made("span", "", "player");
  readonly #words = made("span", "", "words");
  #number = -1;

  constructor(index: number) {
    this.root.id = `line-${index}`;
    this.root.setAttribute("role", "option");
    this.root.append(this.#time, this.#type, this.#player, this.#words);
  }

  show(number: number, row: Row, place: number, top: number, active: boolean): void {
    this.root.style.transform = `translateY(${top}px)`;
    this.root.setAttribute("aria-posinset", String(place + 1));
    this.root.setAttribute("aria-selected", String(active));
    if (this.#number === number) return;
    this.#number = number;
    const { dataset } = this.root;
    dataset["number"] = String(number);
    if (row.kind === "note") {
      this.root.className = "row note";
      delete dataset["event"];
      this.#time.textContent = clock(row.time);
      this.#type.textContent = this.#player.textContent = "";
      this.#words.textContent = row.text;
      return;
    }
    const event = row.delivered.event!;
    this.root.className = "row";
    dataset["event"] = event.eventId;
    dataset["type"] = event.eventType;
    this.#time.textContent = clock(event.acceptTime);
    this.#type.textContent = typeName(event.eventType);
    this.#player.textContent = event.playerId;
    this.#words.textContent = words(event);
  }
}

export class List {
  readonly #ring: Ring;
  readonly #box: HTMLElement;
  readonly #rows: HTMLElement;
  readonly #newer: HTMLElement;
  readonly #open: (row: Row) => void;
  readonly #drawing: Drawing;
  readonly #lines: Line[] = [];
  #rowHeight = 0;
  #boxHeight = 0;
  /** The row at the top while the reader looks at older ones; else the newest one is. */
  #pinned: number | undefined;
  /** The row at the top when it was drawn last: what the reader sees. */
  #shown = 0;
  /** The row that the keyboard is at. */
  #active: number | undefined;

  constructor(
    ring: Ring,
    parts: { box: HTMLElement; rows: HTMLElement; newer: HTMLElement },
    open: (row: Row) => void,
    drawing: Drawing,
  ) {
    this.#ring = ring;
    this.#box = parts.box;
    this.#rows = parts.rows;
    this.#newer = parts.newer;
    this.#open = open;
    this.#drawing = drawing;
    drawing.add(() => this.#draw());
    this.#box.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#box.addEventListener("keydown", (key) => this.#key(key));
    this.#box.addEventListener("click", (click) => this.#click(click));
    this.#newer.addEventListener("click", () => {
      this.#follow();
      this.#box.focus();
    });
    new ResizeObserver(() => this.#measure()).observe(this.#box);
  }

  /** Goes back to the newest row. */
  rewind(): void {
    this.#active = undefined;
    this.#follow();
  }

  #measure(): void {
    this.#boxHeight = this.#box.clientHeight;
    this.#rowHeight = parseFloat(getComputedStyle(this.#box).getPropertyValue("--row"));
    this.#drawing.now();
  }

  #top(): number {
    const top = this.#pinned ?? this.#ring.next - 1;
    return Math.max(top, Math.min(this.#ring.oldest, this.#ring.next - 1));
  }

  #follow(): void {
    this.#pinned = undefined;
    this.#box.scrollTop = 0;
    this.#drawing.now();
  }

  #scrolled(): void {
    if (this.#box.scrollTop > 0) this.#pinned ??= this.#shown;
    else if (this.#active === undefined) this.#pinned = undefined;
    this.#drawing.now();
  }

  #draw(): void {
    // Not measured yet; that has it drawn.
    if (this.#rowHeight === 0) return;
    const top = (this.#shown = this.#top());
    const count = top - this.#ring.oldest + 1;
    const height = this.#rowHeight;
    this.#rows.style.height = `${count * height}px`;
    const newer = this.#ring.next - 1 - top;
    this.#newer.hidden = this.#pinned === undefined || newer === 0;
    this.#newer.textContent = `▲ ${newer} newer`;

    const visible = Math.ceil(this.#boxHeight / height) + 1;
    // To ask for what is known to be 0 would have the browser lay out everything once more.
    const scrolled = this.#pinned === undefined ? 0 : this.#box.scrollTop;
    const first = Math.max(0, Math.floor(scrolled / height) - MARGIN);
    const last = Math.min(count, first + visible + 2 * MARGIN);
    const wanted = Math.min(visible + 2 * MARGIN, this.#ring.next - this.#ring.oldest);
    while (this.#lines.length < wanted) {
      const line = new Line(this.#lines.length);
      this.#lines.push(line);
      this.#rows.append(line.root);
    }
    // A row keeps its line for as long as it can be seen.
    const lines = this.#lines.length;
    const used = new Set<Line>();
    let active = "";
    for (let place = first; place < last; place += 1) {
      const number = top - place;
      const row = this.#ring.get(number);
      const line = this.#lines[number % lines];
      if (!row || !line) continue;
      const isActive = number === this.#active;
      line.show(number, row, place, place * height, isActive);
      line.root.setAttribute("aria-setsize", String(count));
      line.root.hidden = false;
      if (isActive) active = line.root.id;
      used.add(line);
    }
    for (const line of this.#lines) if (!used.has(line)) line.root.hidden = true;
    if (active) this.#box.setAttribute("aria-activedescendant", active);
    else this.#box.removeAttribute("aria-activedescendant");
  }

  #key(key: KeyboardEvent): void {
    if (key.altKey || key.ctrlKey || key.metaKey) return;
    const page = Math.max(1, Math.floor(this.#boxHeight / this.#rowHeight) - 1);
    const steps: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: page,
      PageUp: -page,
      End: Number.MAX_SAFE_INTEGER,
    };
    const step = steps[key.key];
    if (step !== undefined) this.#move(step);
    else if (key.key === "Home") {
      this.#active = undefined;
      this.#follow();
    } else if (key.key === "Enter" || key.key === " ") {
      const row = this.#active === undefined ? undefined : this.#ring.get(this.#active);
      if (row) this.#open(row);
    } else return;
    key.preventDefault();
  }

  /** Moves the keyboard's place down by so many rows, and has it seen. */
  #move(step: number): void {
    if (this.#ring.next === this.#ring.oldest) return;
    this.#pinned ??= this.#shown;
    const top = (this.#pinned = this.#top());
    const place =
      this.#active === undefined
        ? Math.floor(this.#box.scrollTop / this.#rowHeight) - Math.sign(step)
        : top - this.#active;
    const moved = Math.min(Math.max(place + step, 0), top - this.#ring.oldest);
    this.#active = top - moved;
    const above = moved * this.#rowHeight;
    const below = above + this.#rowHeight - this.#boxHeight;
    // The list may just have become longer.
    this.#draw();
    this.#box.scrollTop = Math.min(Math.max(this.#box.scrollTop, below), above);
    this.#drawing.now();
  }

  #click(click: MouseEvent): void {
    const line = click.target instanceof Element ? click.target.closest(".row") : null;
    const number = Number(line instanceof HTMLElement ? line.dataset["number"] : NaN);
    const row = this.#ring.get(number);
    if (!row) return;
    this.#active = number;
    this.#drawing.now();
    this.#open(row);
  }
}
