// Who waits, and what for.

import { el, text } from "./dom.js";
import { table, who, words } from "./parts.js";
import { bytes, count, elapsed, waitReason } from "./words.js";

// That is why the numbers of the list repeat.
const ABOUT_POSITIONS = "A position counts only those that compete for the same GPUs.";

export function ticketColumns(store, now) {
  return [
    { title: "Position", className: "tiny", make: words((ticket) => String(ticket.position)) },
    { title: "Task", className: "short", make: words((ticket) => ticket.task) },
    { title: "Holder to be", className: "wide", make: who },
    { title: "Priority", className: "number", make: words((ticket) => String(ticket.priority)) },
    { title: "Memory", className: "number", make: words((ticket) => (ticket.memory ? bytes(ticket.memory) : "–")) },
    { title: "Waits", className: "number", make: words((ticket) => elapsed(now() - ticket.since)) },
    {
      title: "Gives up in",
      className: "number",
      make: words((ticket) => (ticket.until === null ? "never" : elapsed(ticket.until - now()))),
    },
    {
      title: "Why",
      className: "why",
      make: words((ticket) => waitReason(ticket, store.gpus, store.leases.rows, now())),
    },
  ];
}

export function queue({ store, clockNow }) {
  const rows = table({
    label: "Waiting requests",
    empty: "Nobody waits.",
    keyOf: (ticket) => `${ticket.client}\n${ticket.id}`,
    columns: ticketColumns(store, clockNow),
  });
  const intro = el("p", { class: "dim" });
  return {
    node: el("div", { class: "view" }, el("h1", {}, "Queue"), intro, el("section", { class: "panel" }, rows.node)),
    update() {
      text(intro, `${count(store.queue.total, "request")} waiting, in the order of the queue. ${ABOUT_POSITIONS}`);
      rows.update(store.queue.rows, store.queue.total);
    },
  };
}
