// Events in words.

import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import { type GameEvent, GameEventSchema } from "./gen/game_pb";

/** The event types that this build knows: the fields of the payload. */
export const EVENT_TYPES = GameEventSchema.oneofs
  .find((oneof) => oneof.name === "payload")!
  .fields.map((field) => field.name);

/** A type as people say it: "item purchased". */
export function typeName(type: string): string {
  return type.replaceAll("_", " ");
}

/** An amount of money in its smallest coin. */
export function money(minorUnits: bigint, currency: string): string {
  return `${minorUnits} ${currency}`;
}

/** What happened, without who did it. */
export function words({ payload }: GameEvent): string {
  const { case: type, value } = payload;
  switch (type) {
    case "sessionStarted":
      return "started a session";
    case "itemPurchased": {
      const price = money(value.totalPrice, value.currencyCode);
      return `bought ${value.quantity} ${value.itemId} for ${price}`;
    }
    case "guildJoined":
      return `joined ${value.guildId}`;
    case "guildLeft":
      return `left ${value.guildId}`;
    case "itemGranted":
      return `was given ${value.quantity} ${value.itemId}`;
    case "itemConsumed":
      return `used up ${value.quantity} ${value.itemId}`;
    case "purchaseRefunded": {
      const price = money(value.totalPrice, value.currencyCode);
      return `gave back ${value.quantity} ${value.itemId} for ${price}`;
    }
    case "requestRejected": {
      const wrong = value.violations.map((v) => `${v.field}: ${v.description}`).join("; ");
      return `refused ${value.method}: ${wrong}`;
    }
    default:
      return "of a kind that this page does not know";
  }
}

const CLOCK = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
});

/** A time of day where the reader is, to the millisecond. */
export function clock(time: Timestamp | number | undefined): string {
  if (time === undefined) return "";
  return CLOCK.format(typeof time === "number" ? time : timestampMs(time));
}
