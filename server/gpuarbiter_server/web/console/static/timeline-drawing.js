// What the timeline is drawn of: its axis, its leases with their marks, and what these mean.

import { attribute, el, keyed, svg, text } from "./dom.js";
import { ticks } from "./packing.js";
import { clean, clock, endedBadly } from "./words.js";

export const AXIS = 24;
const LETTER = 7;

/** What the marks mean. */
export const LEGEND = [
  { mark: "yield", words: "asked to yield" },
  { mark: "exceeded", words: "held past its limit" },
  { mark: "forced", words: "ended without its holder's word" },
];

export function legendItem(item, palette) {
  const node = item.mark
    ? el("li", {}, el("span", { class: `glyph ${item.mark}` }), item.words)
    : el("li", {}, el("span", { class: `swatch task-${palette.of(item)}` }), clean(item));
  return { node, update: () => {} };
}

/** The moments along the top, with a line for each through all rows. */
export function axis(grid, from, to, x, height, width) {
  const moments = ticks(from, to, Math.max(2, (width - x(from)) / 90));
  const marks = moments.map((at) => ({ at, x: x(at).toFixed(1), height }));
  keyed(grid, marks, ({ at }) => Math.round(at), tick);
}

function tick() {
  const mark = svg("line", { y1: AXIS - 6 });
  const label = svg("text", { y: 13, "text-anchor": "middle" });
  return {
    node: svg("g", {}, mark, label),
    update({ at, x, height }) {
      attribute(mark, "x1", x);
      attribute(mark, "x2", x);
      attribute(mark, "y2", height);
      attribute(label, "x", x);
      text(label, clock(at));
    },
  };
}

/** A lease. */
export function bar(palette) {
  const block = svg("rect", { rx: 3 });
  const caption = svg("text", { class: "caption" });
  const marks = svg("g");
  const end = svg("rect", { class: "forced", width: 3 });
  const node = svg("g", { class: "held" }, block, caption, marks, end);
  return {
    node,
    update() {},
    draw(span, y, height, { from, to, x }, now, width, chosen) {
      const left = x(Math.max(span.begin, from));
      const right = x(Math.min(span.end ?? now, to));
      const wide = Math.max(1.5, right - left);
      attribute(node, "data-id", span.id);
      attribute(
        node,
        "class",
        `held task-${palette.of(span.task)}${chosen ? " chosen" : ""}${span.end ? "" : " live"}`,
      );
      attribute(block, "x", left.toFixed(1));
      attribute(block, "y", y.toFixed(1));
      attribute(block, "width", wide.toFixed(1));
      attribute(block, "height", height.toFixed(1));
      const letters = height >= 12 ? Math.floor((wide - 8) / LETTER) : 0;
      text(caption, letters > 2 ? clean(span.client, Math.max(2, letters)) : "");
      attribute(caption, "x", (left + 4).toFixed(1));
      attribute(caption, "y", (y + height / 2 + 4).toFixed(1));
      const shown = span.marks.filter(([at, kind]) => GLYPHS[kind] && at >= from && at <= to);
      keyed(marks, shown, ([at, kind]) => `${kind}${at}`, glyph);
      for (const [at, kind] of shown) marks.kept.get(`${kind}${at}`).draw(x(at), y, height);
      const forced = span.end && span.end <= to && endedBadly(span.how);
      attribute(end, "visibility", forced ? "visible" : "hidden");
      if (forced) {
        attribute(end, "x", Math.min(width - 3, right - 1.5).toFixed(1));
        attribute(end, "y", (y - 1).toFixed(1));
        attribute(end, "height", (height + 2).toFixed(1));
      }
    },
  };
}

const GLYPHS = { YIELD_REQUESTED: "yield", HOLD_EXCEEDED: "exceeded" };

function glyph([, kind]) {
  const node = svg("path", { class: `glyph ${GLYPHS[kind]}` });
  return {
    node,
    update() {},
    draw(x, y, height) {
      const size = Math.min(5, height / 2);
      const middle = y + height / 2;
      // The watchdog tells of a limit and asks to yield in the same moment: side by side.
      const left = x - 2 * size;
      const path =
        kind === "YIELD_REQUESTED"
          ? `M${x},${middle - size}L${x + size},${middle + size}H${x - size}Z`
          : `M${left},${middle - size}L${left + size},${middle}L${left},${middle + size}L${left - size},${middle}Z`;
      attribute(node, "d", path);
    },
  };
}
