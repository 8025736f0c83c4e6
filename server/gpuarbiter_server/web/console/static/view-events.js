// What happens, the newest first.

import { attribute, el, keyed, show, text } from "./dom.js";
import { name } from "./parts.js";
import { clean, clock, count, eventDetail, eventKind } from "./words.js";

const MOST_ROWS = 200;
const GROUPS = { leases: "Leases", queue: "Queue", gpus: "GPUs", operators: "Operators" };

export function events({ store }) {
  const on = new Set(Object.keys(GROUPS));
  let kept = null;
  const search = el("input", {
    type: "search",
    placeholder: "Task, holder, GPU, word …",
    "aria-label": "Filter",
    maxlength: 200,
  });
  const pause = el("button", { type: "button", "aria-pressed": "false" }, "Pause");
  const boxes = Object.entries(GROUPS).map(([group, title]) => {
    const box = el("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      if (box.checked) on.add(group);
      else on.delete(group);
      update();
    });
    return el("label", { class: "check" }, box, title);
  });
  const list = el("ol", { class: "events" });
  const nothing = el("p", { class: "empty" });
  const note = el("p", { class: "more" });
  const node = el(
    "div",
    { class: "view" },
    el("h1", {}, "Events"),
    el("div", { class: "tools", role: "group", "aria-label": "Filter" }, search, ...boxes, pause),
    el("section", { class: "panel" }, list, nothing, note),
  );
  pause.addEventListener("click", () => {
    kept = kept === null ? store.events : null;
    attribute(pause, "aria-pressed", kept !== null);
    update();
  });
  search.addEventListener("input", update);

  function update() {
    const all = kept ?? store.events;
    const wanted = search.value.trim().toLowerCase();
    const found = all.filter((event) => on.has(eventKind(event).group) && (!wanted || matches(event, wanted)));
    keyed(list, found.slice(0, MOST_ROWS), (event) => event.n, row);
    const newer = kept === null ? 0 : store.events.findIndex((event) => event.n === kept[0]?.n);
    text(pause, kept === null ? "Pause" : `Go on${newer > 0 ? ` (${newer} new)` : ""}`);
    show(nothing, found.length === 0);
    text(nothing, all.length === 0 ? "Nothing has happened yet." : "No event is like that.");
    show(note, found.length > MOST_ROWS);
    text(note, `and ${count(found.length - MOST_ROWS, "older one")}; gpu-arbiter events shows all that are kept`);
  }
  return { node, update };
}

function matches(event, wanted) {
  const said = [
    event.type,
    event.task,
    event.client,
    event.namespace,
    event.lease,
    event.request,
    event.detail,
    event.end,
  ];
  return [...said, ...(event.gpus ?? []), eventKind(event).words].some((part) => part?.toLowerCase().includes(wanted));
}

function row(event) {
  const { words, kind } = eventKind(event);
  const client = name(event.client ?? "");
  const node = el(
    "li",
    { "data-kind": kind },
    el("time", {}, clock(event.at)),
    el("strong", {}, words),
    event.task ? el("span", { class: "task" }, clean(event.task)) : null,
    event.client ? client.node : null,
    event.gpus ? el("span", {}, event.gpus.join(", ")) : null,
    el("span", { class: "dim detail" }, eventDetail(event)),
  );
  return { node, update: () => {} };
}
