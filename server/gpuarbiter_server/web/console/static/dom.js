// Making and changing elements. Law: whatever comes from elsewhere gets into the page as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  return node;
}

/** An element with attributes and children; text among them stays text. */
export function el(tag, attributes = {}, ...children) {
  const node = set(document.createElement(tag), attributes);
  node.append(...children.filter((child) => child != null));
  return node;
}

/** The same of SVG. */
export function svg(tag, attributes = {}, ...children) {
  const node = set(document.createElementNS(SVG, tag), attributes);
  node.append(...children.filter((child) => child != null));
  return node;
}

/** Changes the text of a node, if it is another one. */
export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

/** Changes an attribute, if it is another one; null takes it away. */
export function attribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Shows or hides. */
export function show(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

/**
 * Has a child for each item, in their order; `make(item)` returns {node, update(item)}. Children of items that stay
 * are kept, so that focus and selection stay as well.
 */
export function keyed(parent, items, keyOf, make) {
  const before = parent.kept ?? new Map();
  const after = new Map();
  for (const item of items) {
    const key = keyOf(item);
    if (after.has(key)) continue;
    const row = before.get(key) ?? make(item);
    after.set(key, row);
    row.update(item);
  }
  // First of all, so that nothing else has to move because one is gone.
  for (const [key, row] of before) if (!after.has(key)) row.node.remove();
  let place = parent.firstChild;
  for (const { node } of after.values()) {
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
  parent.kept = after;
}

/** Tells how far the pointer was dragged, in pixels, each time that it has moved. */
export function drag(node, moved) {
  let last = null;
  node.addEventListener("pointerdown", (event) => {
    if (event.button === 0) last = event.clientX;
  });
  node.addEventListener("pointermove", (event) => {
    if (last === null) return;
    if (event.buttons === 0) {
      last = null;
      return;
    }
    moved(event.clientX - last);
    last = event.clientX;
  });
  for (const end of ["pointerup", "pointercancel", "pointerleave"]) {
    node.addEventListener(end, () => {
      last = null;
    });
  }
}
