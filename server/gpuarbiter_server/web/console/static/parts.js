// Pieces that several views are made of.

import { attribute, el, keyed, show, text } from "./dom.js";
import { clean } from "./words.js";

// Of a table, unless more are asked for: each costs time whenever a figure changes.
const MOST_ROWS = 100;
// Of columns, by their class.
const WIDTHS = {
  tiny: "64px",
  short: "140px",
  number: "96px",
  score: "150px",
  amount: "170px",
  acts: "104px",
  wide: "minmax(150px, 1fr)",
  why: "minmax(260px, 2fr)",
};
const WIDTH = "minmax(100px, 1fr)";

/** A name that others chose: in a direction of its own, cut where it is too long, whole on hover. */
export function name(value, className = "name") {
  const node = el("bdi", { class: className });
  update(value);
  function update(next) {
    const shown = clean(next);
    text(node, shown);
    attribute(node, "title", shown);
  }
  return { node, update };
}

export function pill(className = "pill") {
  const node = el("span", { class: className });
  return {
    node,
    update(kind, words) {
      attribute(node, "data-kind", kind);
      text(node, words);
    },
  };
}

/** The memory of a GPU as a bar: committed, unleased, free to promise, headroom; a line shows what is in use. */
export function ledger() {
  const segments = ["committed", "unleased", "free", "headroom"].map((part) => el("span", { class: `part ${part}` }));
  const used = el("span", { class: "used" });
  const node = el("div", { class: "ledger", role: "img" }, ...segments, used);
  return {
    node,
    update(gpu, words) {
      const total = gpu.total || 1;
      const left = Math.max(0, total - gpu.committed - gpu.unleased - gpu.headroom);
      const sizes = [gpu.committed, gpu.unleased, left, gpu.headroom];
      const whole = Math.max(
        total,
        sizes.reduce((sum, size) => sum + size, 0),
      );
      segments.forEach((segment, place) => {
        segment.style.width = `${(100 * sizes[place]) / whole}%`;
      });
      show(used, gpu.used != null);
      used.style.width = `${Math.min(100, (100 * (gpu.used ?? 0)) / total)}%`;
      attribute(node, "aria-label", words);
    },
  };
}

/**
 * A table of rows that becomes a list of cards on a phone. columns: [{title, className, make(row) → {node, update(row)}}].
 */
export function table({ columns, keyOf, empty, label }) {
  const head = el(
    "tr",
    { role: "row" },
    ...columns.map((column) => el("th", { role: "columnheader", scope: "col", class: column.className }, column.title)),
  );
  const body = el("tbody", { role: "rowgroup" });
  const nothing = el("p", { class: "empty" }, empty);
  const all = el("button", { type: "button", class: "small" });
  const hidden = el("p", { class: "more" });
  const more = el("div", { class: "more", hidden: true }, all, hidden);
  let most = MOST_ROWS;
  let draw = () => {};
  all.addEventListener("click", () => {
    most = Number.POSITIVE_INFINITY;
    draw();
  });
  const whole = el("table", { role: "table", "aria-label": label }, el("thead", { role: "rowgroup" }, head), body);
  const widths = columns.map(({ className = "" }) => WIDTHS[className.split(" ")[0]] ?? WIDTH);
  whole.style.setProperty("--columns", widths.join(" "));
  return {
    node: el("div", { class: "tablebox" }, whole, nothing, more),
    update(rows, total = rows.length) {
      draw = () => {
        const shown = rows.slice(0, most);
        show(whole, rows.length > 0);
        show(nothing, rows.length === 0);
        show(more, total > shown.length);
        show(all, rows.length > shown.length);
        text(all, `Show ${rows.length}`);
        text(hidden, `and ${total - shown.length} more`);
        keyed(body, shown, keyOf, (row) => line(row, columns));
      };
      draw();
    },
  };
}

function line(row, columns) {
  const cells = columns.map((column) => column.make(row));
  const node = el(
    "tr",
    { role: "row" },
    ...cells.map((cell, place) =>
      el("td", { role: "cell", class: columns[place].className, "data-title": columns[place].title }, cell.node),
    ),
  );
  return {
    node,
    update(next) {
      for (const cell of cells) cell.update(next);
    },
  };
}

/** A cell of text. */
export function words(from, tag = "span") {
  return () => {
    const node = el(tag);
    return { node, update: (row) => text(node, from(row)) };
  };
}

/** A cell with a name of others, and what else is known of them below. */
export function who() {
  const client = name("");
  const where = name("", "name dim small");
  return {
    node: el("div", { class: "who" }, client.node, where.node),
    update(row) {
      client.update(row.client);
      where.update([row.namespace, row.pod].filter(Boolean).join(" / "));
      show(where.node, Boolean(row.namespace || row.pod));
    },
  };
}

/** A tile with one figure. */
export function tile(title) {
  const figure = el("strong");
  const note = el("span", { class: "dim small" });
  const node = el("div", { class: "tile" }, el("span", { class: "title" }, title), figure, note);
  return {
    node,
    update(value, words = "", kind = "calm") {
      text(figure, value);
      text(note, words);
      attribute(node, "data-kind", kind);
    },
  };
}
