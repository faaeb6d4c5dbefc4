// Acting as a player: buying, joining, and what the player has then.

import type { MessageInitShape } from "@bufbuild/protobuf";
import { Backoff, sleep } from "./backoff";
import { type Failure, failure, game } from "./calls";
import { element, made, pairs } from "./dom";
import type {
  EventReceipt,
  JoinGuildRequestSchema,
  PurchaseItemRequestSchema,
} from "./gen/game_pb";
import { clock, money } from "./words";

/** How long one call may take. */
const TIMEOUT_MS = 10_000;

/** How long an action is tried again by itself, with the same request id. */
const RETRY_MS = 30_000;

const form = element("act", HTMLFormElement);
const player = element("player_id", HTMLInputElement);
const item = element("item_id", HTMLSelectElement);
const quantity = element("quantity", HTMLInputElement);
const guild = element("guild_id", HTMLInputElement);
const error = element("act-error", HTMLParagraphElement);
const receipt = element("receipt", HTMLDivElement);
const owned = element("player", HTMLDivElement);
const buttons = ["buy", "join", "show"].map((id) => element(id, HTMLButtonElement));

/** The fields that have a place for what is wrong with them. */
const FIELDS: Record<string, HTMLElement> = {
  player_id: player,
  item_id: item,
  quantity,
  guild_id: guild,
};

/** An action whose outcome is not known yet: the same again has the same request id. */
let unsettled: { action: string; requestId: string } | undefined;

export function start(): void {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void once(buy);
  });
  element("join", HTMLButtonElement).addEventListener("click", () => void once(join));
  element("show", HTMLButtonElement).addEventListener("click", () => void once(() => show("")));
  void loadCatalog();
}

async function loadCatalog(): Promise<void> {
  const backoff = new Backoff();
  for (;;) {
    try {
      const catalog = await game.getCatalog({}, { timeoutMs: TIMEOUT_MS });
      for (const { itemId, displayName, unitPrice } of catalog.items) {
        const price = money(unitPrice, catalog.currencyCode);
        item.append(new Option(`${displayName}, ${price}`, itemId));
      }
      const guilds = element("guilds", HTMLDataListElement);
      for (const id of catalog.guildIds) guilds.append(new Option(id));
      return;
    } catch (reason) {
      const failed = failure(reason);
      if (!failed.retryable) return showFailure(failed);
      await sleep(backoff.next());
    }
  }
}

/** Does one thing at a time: the buttons wait. */
async function once(act: () => Promise<void>): Promise<void> {
  for (const button of buttons) button.disabled = true;
  const focused = document.activeElement;
  clearErrors();
  try {
    await act();
  } finally {
    for (const button of buttons) button.disabled = false;
    // A button that is disabled loses the focus.
    if (document.activeElement === document.body && focused instanceof HTMLElement) focused.focus();
  }
}

async function buy(): Promise<void> {
  const fields: MessageInitShape<typeof PurchaseItemRequestSchema> = {
    playerId: player.value,
    itemId: item.value,
    // What is no whole number is refused as 0 is.
    quantity: Number.isInteger(quantity.valueAsNumber) ? clamped(quantity.valueAsNumber) : 0,
  };
  await act("purchase", fields, async (requestId) => {
    const done = await game.purchaseItem({ ...fields, requestId }, { timeoutMs: TIMEOUT_MS });
    const bought = done.purchase!;
    const price = money(bought.totalPrice, bought.currencyCode);
    const owns = `${done.ownedQuantity} owned now`;
    return [done.receipt!, `Bought ${bought.quantity} ${bought.itemId} for ${price}; ${owns}`];
  });
}

async function join(): Promise<void> {
  const fields: MessageInitShape<typeof JoinGuildRequestSchema> = {
    playerId: player.value,
    guildId: guild.value,
  };
  await act("join", fields, async (requestId) => {
    const done = await game.joinGuild({ ...fields, requestId }, { timeoutMs: TIMEOUT_MS });
    return [done.receipt!, `Joined ${guild.value}`];
  });
}

/** Carries out an action, once however often it is tried, and shows what came of it. */
async function act(
  kind: string,
  fields: object,
  call: (requestId: string) => Promise<[EventReceipt, string]>,
): Promise<void> {
  const action = JSON.stringify([kind, fields]);
  if (unsettled?.action !== action) unsettled = { action, requestId: uuid() };
  const { requestId } = unsettled;
  receipt.replaceChildren(made("p", "waiting for the receipt"));
  const backoff = new Backoff();
  const until = performance.now() + RETRY_MS;
  for (;;) {
    try {
      const [proof, words] = await call(requestId);
      unsettled = undefined;
      showReceipt(proof, words);
      await show(proof.cursor);
      return owned.scrollIntoView({ block: "nearest" });
    } catch (reason) {
      const failed = failure(reason);
      if (!failed.retryable) {
        unsettled = undefined;
        receipt.replaceChildren();
        return showFailure(failed);
      }
      const delay = Math.max(backoff.next(), failed.retryDelayMs);
      if (performance.now() + delay > until) {
        const again = "The same again has the same request id, and is carried out once.";
        receipt.replaceChildren(made("p", `No receipt. ${again}`));
        return showFailure(failed);
      }
      receipt.replaceChildren(made("p", `trying again: ${failed.text}`));
      await sleep(delay);
    }
  }
}

/** Shows what the player has, once everything before the cursor is in it. */
async function show(atLeastCursor: string): Promise<void> {
  try {
    const request = { playerId: player.value, atLeastCursor };
    const { player: found } = await game.getPlayer(request, { timeoutMs: TIMEOUT_MS });
    const list = made("ul");
    for (const { itemId, quantity } of found!.inventory) {
      list.append(made("li", `${quantity} ${itemId}`));
    }
    const facts = pairs([
      ["guild", found!.guildId || "none"],
      ["sessions", String(found!.sessionCount)],
      ["last seen", clock(found!.lastSeenTime)],
    ]);
    owned.replaceChildren(made("h3", found!.playerId), facts, made("h4", "Inventory"));
    owned.append(list.childElementCount > 0 ? list : made("p", "nothing"));
  } catch (reason) {
    owned.replaceChildren();
    showFailure(failure(reason));
  }
}

function showReceipt(proof: EventReceipt, words: string): void {
  const again = proof.replayed ? " (written before)" : "";
  const facts = pairs([
    ["event", proof.eventId],
    ["request", proof.requestId],
    ["accepted", clock(proof.acceptTime)],
    ["partition", String(proof.partition)],
    ["offset", String(proof.offset)],
  ]);
  receipt.replaceChildren(made("h3", "Receipt"), made("p", words + again), facts);
}

function showFailure(failed: Failure): void {
  const elsewhere: string[] = [];
  let first: HTMLElement | undefined;
  for (const { field, description } of failed.violations) {
    const input = FIELDS[field];
    if (!input) {
      elsewhere.push(`${field}: ${description}`);
      continue;
    }
    first ??= input;
    input.setAttribute("aria-invalid", "true");
    element(`${field}-error`, HTMLParagraphElement).textContent = description;
  }
  if (elsewhere.length === 0 && !first) elsewhere.push(failed.text);
  error.textContent = elsewhere.join("; ");
  first?.focus();
}

function clearErrors(): void {
  error.textContent = "";
  for (const [name, input] of Object.entries(FIELDS)) {
    input.removeAttribute("aria-invalid");
    element(`${name}-error`, HTMLParagraphElement).textContent = "";
  }
}

/** Into the range of an int32, which the server then judges. */
function clamped(number: number): number {
  return Math.min(Math.max(number, -(2 ** 31)), 2 ** 31 - 1);
}

/** A random UUID. `crypto.randomUUID` is there on loopback and with TLS only. */
function uuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
