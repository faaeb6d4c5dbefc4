// Elements of index.html, and new ones. Texts are only ever set as text: what is in an event
// is somebody else's.

/** The element of this id, which index.html has. */
export function element<T extends Element>(id: string, type: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`index.html has no ${type.name} #${id}`);
  return found;
}

/** A new element with a text, and a class if it is to have one. */
export function made<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  text = "",
  className = "",
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = className;
  return element;
}

/** Pairs of a name and a value. */
export function pairs(entries: [string, string][]): HTMLDListElement {
  const list = document.createElement("dl");
  for (const [name, value] of entries) list.append(made("dt", name), made("dd", value));
  return list;
}
