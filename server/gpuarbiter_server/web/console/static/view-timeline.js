// Who held which GPU when.

import { attribute, drag, el, keyed, show, svg, text } from "./dom.js";
import { nearest, neighbour, Palette, pack, View } from "./packing.js";
import { tell } from "./timeline-details.js";
import { AXIS, axis, bar, LEGEND, legendItem } from "./timeline-drawing.js";
import { clock, duration } from "./words.js";

const SECONDS = 900;
const FIRST_SECONDS = 120;
const LABEL_WIDTH = 76;
const LANE = 22;
const LEAST_LANE = 7;
const MOST_HEIGHT = 132;
const GAP = 10;
const COLOURS = 8;

export function timeline({ store, redraw }) {
  const view = new View(FIRST_SECONDS, SECONDS);
  const palette = new Palette(COLOURS);
  let chosen = null;
  let hovered = null;
  let width = 900;
  let rows = [];
  let now = 0;

  const grid = svg("g", { class: "grid" });
  const lanes = svg("g");
  const canvas = svg(
    "svg",
    {
      class: "timeline",
      tabindex: 0,
      role: "application",
      "aria-label":
        "Leases over time, by GPU. Arrow keys go from lease to lease; plus and minus zoom; Shift and arrow keys move.",
    },
    grid,
    lanes,
  );
  const stage = el("div", { class: "stage" }, canvas);
  const details = el("div", { class: "details", role: "status", "aria-live": "polite" });
  const legend = el("ul", { class: "legend tasks", "aria-label": "Colours" });
  const empty = el("p", { class: "empty" }, "Nothing was held in this time.");
  const button = (label, title, act) => {
    const node = el("button", { type: "button", title, "aria-label": title }, label);
    node.addEventListener("click", () => {
      act();
      redraw();
    });
    return node;
  };
  const follow = button("Now", "Follow what happens now", () => view.follow());
  const span = el("span", { class: "dim" });
  const tools = el(
    "div",
    { class: "tools", role: "group", "aria-label": "Time shown" },
    button("−", "Show more time", () => view.zoom(1.5, now)),
    button("+", "Show less time", () => view.zoom(1 / 1.5, now)),
    button("◀", "Earlier", () => view.pan(-0.3, now)),
    button("▶", "Later", () => view.pan(0.3, now)),
    button("All", "Show a quarter of an hour", () => view.all()),
    follow,
    span,
  );
  const node = el(
    "div",
    { class: "view" },
    el("h1", {}, "Timeline"),
    tools,
    el("section", { class: "panel flush" }, stage, empty),
    details,
    legend,
    el(
      "p",
      { class: "dim small keys" },
      "Wheel: zoom. Drag: move. Keys: arrows from lease to lease, + and − zoom, Shift and arrows move, Home shows all, End follows.",
    ),
  );

  new ResizeObserver(([entry]) => {
    width = Math.max(240, entry.contentRect.width);
    redraw();
  }).observe(stage);
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        view.pan((event.deltaX || event.deltaY) / width, now);
      } else {
        view.zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, now, momentAt(event));
      }
      redraw();
    },
    { passive: false },
  );
  drag(canvas, (dx) => {
    view.pan(-dx / Math.max(1, width - LABEL_WIDTH), now);
    redraw();
  });
  canvas.addEventListener("pointermove", (event) => hover(event.target.closest?.("[data-id]")?.dataset.id ?? null));
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener("click", (event) => {
    const id = event.target.closest?.("[data-id]")?.dataset.id;
    if (id) choose(store.spans.get(id));
  });
  canvas.addEventListener("keydown", (event) => {
    if (key(event)) {
      event.preventDefault();
      redraw();
    }
  });

  function momentAt(event) {
    const { from, to } = view.range(now);
    const x = event.clientX - canvas.getBoundingClientRect().left - LABEL_WIDTH;
    return from + (x / Math.max(1, width - LABEL_WIDTH)) * (to - from);
  }

  function hover(id) {
    if (hovered === id) return;
    hovered = id;
    redraw();
  }

  function choose(next) {
    chosen = next ?? chosen;
    redraw();
  }

  function key(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move && event.shiftKey) view.pan(0.2 * move, now);
    else if (move) step(move);
    else if (event.key === "ArrowUp" || event.key === "ArrowDown") hop(event.key === "ArrowUp" ? -1 : 1);
    else if (event.key === "+" || event.key === "=") view.zoom(1 / 1.5, now);
    else if (event.key === "-") view.zoom(1.5, now);
    else if (event.key === "Home") view.all();
    else if (event.key === "End") view.follow();
    else if (event.key === "Escape" && chosen) chosen = null;
    else return false;
    return true;
  }

  function step(direction) {
    const row = rows.find((each) => each.key === chosenRow()) ?? rows[0];
    if (row) reveal(neighbour(row.spans, chosen, direction));
  }

  function hop(direction) {
    const place = rows.findIndex((each) => each.key === chosenRow());
    const row = rows[Math.min(rows.length - 1, Math.max(0, place < 0 ? 0 : place + direction))];
    if (!row) return;
    const found = nearest(row.spans, chosen?.begin ?? now, now);
    if (found) reveal(found, row.key);
  }

  function chosenRow() {
    return chosen?.row ?? chosen?.gpus?.[0];
  }

  /** Chooses a lease, and moves so that it is seen. */
  function reveal(found, row = chosenRow()) {
    if (!found) return;
    chosen = { ...found, row: found.gpus.includes(row) ? row : found.gpus[0] };
    const { from, to } = view.range(now);
    if (found.begin > to || (found.end ?? now) < from) {
      view.pan(((found.end ?? now) - to) / view.seconds + 0.1, now);
    }
  }

  function draw() {
    const { from, to } = view.range(now);
    const all = [...store.spans.values()].filter((each) => (each.end ?? now) >= now - SECONDS);
    rows = store.gpus.map((gpu) => {
      const spans = all.filter((each) => each.gpus?.includes(gpu.key));
      return { key: gpu.key, spans, ...pack(spans, now) };
    });
    let y = AXIS;
    for (const row of rows) {
      row.lane = Math.max(LEAST_LANE, Math.min(LANE, MOST_HEIGHT / row.lanes));
      row.y = y;
      row.height = row.lane * row.lanes;
      y += row.height + GAP;
    }
    attribute(canvas, "viewBox", `0 0 ${width} ${y}`);
    attribute(canvas, "width", width);
    attribute(canvas, "height", y);
    const scale = (width - LABEL_WIDTH) / (to - from);
    const x = (at) => LABEL_WIDTH + (at - from) * scale;
    axis(grid, from, to, x, y, width);
    keyed(lanes, rows, (row) => row.key, laneRow);
    for (const row of lanes.kept.values()) row.draw({ from, to, x });
    const seen = all.filter((each) => each.begin <= to && (each.end ?? now) >= from);
    show(empty, seen.length === 0);
    const tasks = [...new Set(seen.map((each) => each.task))].sort();
    keyed(
      legend,
      [...tasks, ...LEGEND],
      (each) => each.mark ?? `task ${each}`,
      (each) => legendItem(each, palette),
    );
    attribute(follow, "aria-pressed", view.follows);
    text(span, `${duration(view.seconds)} up to ${view.follows ? "now" : clock(to)}`);
    tell(details, store.spans.get(hovered) ?? (chosen && (store.spans.get(chosen.id) ?? chosen)));
  }

  function laneRow(first) {
    const label = svg("text", { class: "label", x: 8 }, first.key);
    const back = svg("rect", { class: "back", x: LABEL_WIDTH, rx: 3 });
    const bars = svg("g");
    let row = first;
    return {
      node: svg("g", {}, back, label, bars),
      update: (next) => {
        row = next;
      },
      draw(frame) {
        attribute(label, "y", row.y + 15);
        attribute(back, "y", row.y - 3);
        attribute(back, "width", width - LABEL_WIDTH);
        attribute(back, "height", row.height + 6);
        const seen = row.placed.filter(([each]) => each.begin <= frame.to && (each.end ?? now) >= frame.from);
        keyed(
          bars,
          seen,
          ([each]) => each.id,
          () => bar(palette),
        );
        seen.forEach(([each, lane]) => {
          const chosenHere = each.id === chosen?.id || each.id === hovered;
          bars.kept.get(each.id).draw(each, row.y + lane * row.lane, row.lane - 2, frame, now, width, chosenHere);
        });
      },
    };
  }

  return {
    node,
    update(at) {
      now = at;
      draw();
    },
  };
}
