// One row, whole.

import { toJsonString } from "@bufbuild/protobuf";
import { element } from "./dom";
import { DeliveredEventSchema } from "./gen/game_pb";
import type { Row } from "./ring";
import { typeName } from "./words";

const dialog = element("detail", HTMLDialogElement);
const title = element("detail-title", HTMLHeadingElement);
const text = element("detail-text", HTMLPreElement);

/** Shows a row until the user closes it; the focus goes back to where it was. */
export function show(row: Row): void {
  if (row.kind === "note") {
    title.textContent = "Note";
    text.textContent = row.text;
  } else {
    title.textContent = typeName(row.delivered.event?.eventType ?? "");
    text.textContent = toJsonString(DeliveredEventSchema, row.delivered, {
      useProtoFieldName: true,
      prettySpaces: 2,
    });
  }
  dialog.showModal();
}

// Beside the dialog is its backdrop, which belongs to it.
dialog.addEventListener("click", (click) => {
  if (click.target === dialog) dialog.close();
});
