// One GPU: its memory and its work over time, who holds it and who waits for it.

import { chart } from "./charts.js";
import { attribute, el, show, text } from "./dom.js";
import { ledger, name, pill, table } from "./parts.js";
import { FIGURES } from "./store.js";
import { leaseColumns } from "./view-leases.js";
import { ticketColumns } from "./view-queue.js";
import { bytes, clock, count, duration, gpuState, percent } from "./words.js";

const MOST_TICKETS = 50;
const LEDGER = ["committed", "unleased", "admissible", "headroom"];

export function gpu({ store, actions, clockNow }) {
  const title = el("h1");
  const state = pill();
  const model = name("", "name dim");
  const why = el("p", { class: "dim" });
  const unknown = el("p", { class: "empty" }, "There is no such GPU.");
  const drainPlace = el("span");
  const memory = chart({
    width: 900,
    height: 180,
    label: "Memory over a quarter of an hour",
    series: [
      { name: "unleased", filled: true, drawn: false },
      { name: "committed", filled: true, drawn: false },
      { name: "inuse" },
    ],
  });
  const busy = chart({
    width: 900,
    height: 90,
    label: "Utilization over a quarter of an hour",
    series: [{ name: "busy", filled: true }],
  });
  const top = el("span", { class: "dim small" });
  const from = el("span");
  const bar = ledger();
  const held = table({
    label: "Leases on this GPU",
    empty: "Nobody holds it.",
    keyOf: (lease) => lease.id,
    columns: leaseColumns(clockNow, actions),
  });
  const waiting = table({
    label: "Requests that may run on this GPU",
    empty: "Nobody waits for it.",
    keyOf: (ticket) => `${ticket.client}\n${ticket.id}`,
    columns: ticketColumns(store, clockNow),
  });
  const legend = LEDGER.map((part) => el("li", { class: part }));
  const body = el(
    "div",
    {},
    bar.node,
    el("ul", { class: "legend" }, ...legend),
    el(
      "section",
      { class: "panel plot" },
      el("h2", {}, "Memory"),
      top,
      memory.node,
      el(
        "ul",
        { class: "legend" },
        el("li", { class: "inuse" }, "in use"),
        el("li", { class: "committed" }, "committed"),
        el("li", { class: "unleased" }, "unleased, on top of it"),
      ),
    ),
    el(
      "section",
      { class: "panel plot" },
      el("h2", {}, "Utilization"),
      el("span", { class: "dim small" }, "100 %"),
      busy.node,
      el("p", { class: "axis dim small" }, from, el("span", {}, "now")),
    ),
    el("section", { class: "panel" }, el("h2", {}, "Leases"), held.node),
    el("section", { class: "panel" }, el("h2", {}, "Waiting"), waiting.node),
  );
  const node = el(
    "div",
    { class: "view" },
    el("div", { class: "heading" }, title, model.node, state.node, drainPlace),
    why,
    unknown,
    body,
  );
  const drains = new Map();
  return {
    node,
    update(now, key) {
      text(title, key ?? "");
      const place = store.gpus.findIndex((each) => each.key === key);
      const found = store.gpus[place];
      show(unknown, !found);
      show(body, Boolean(found));
      show(state.node, Boolean(found));
      if (!found) return;
      if (!drains.has(key)) drains.set(key, actions.drainButton(key));
      const drain = drains.get(key);
      if (drainPlace.firstChild !== drain.node) drainPlace.replaceChildren(drain.node);
      drain.update(found);
      const { kind, words } = gpuState(found);
      state.update(kind, words);
      model.update(`${found.name} ${bytes(found.total)} ${found.uuid}`.trim());
      text(why, found.why ?? "");
      const parts = LEDGER.map((part) => `${part} ${bytes(found[part])}`);
      bar.update(found, parts.join(", "));
      for (const [each, item] of legend.entries()) text(item, parts[each]);
      const rows = store.readings;
      const begin = rows[0]?.[0] ?? now - 60;
      const series = (figure) => rows.map((row) => [row[0], figure(row[place + 1] ?? [])]);
      memory.update(
        [
          series((row) => (row.length ? row[FIGURES.committed] + row[FIGURES.unleased] : null)),
          series((row) => row[FIGURES.committed]),
          series((row) => row[FIGURES.used]),
        ],
        found.total / 2 ** 20,
        begin,
        now,
      );
      busy.update([series((row) => row[FIGURES.utilization])], 100, begin, now);
      const wait = found.wait_p95 === null ? "" : `, 95 % of its leases waited ${duration(found.wait_p95)} at most`;
      text(top, `${bytes(found.total)} in all, ${bytes(found.used)} in use, ${percent(found.utilization)} busy${wait}`);
      text(from, clock(begin));
      attribute(memory.node, "data-points", rows.length);
      held.update(store.leasesOn(key));
      const tickets = store.queue.rows.filter((ticket) => ticket.candidates.includes(key));
      waiting.update(tickets.slice(0, MOST_TICKETS), Math.max(tickets.length, found.waiting));
      attribute(title, "title", count(found.leases, "lease"));
    },
  };
}
