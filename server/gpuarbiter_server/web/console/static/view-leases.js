// Who holds what.

import { attribute, el, text } from "./dom.js";
import { pill, table, who, words } from "./parts.js";
import { bytes, count, duration, elapsed, leaseState } from "./words.js";

/** The columns of a table of leases; `now()` is the arbiter's time. */
export function leaseColumns(now, actions) {
  return [
    { title: "Task", className: "short", make: words((lease) => lease.task) },
    { title: "Holder", className: "wide", make: who },
    { title: "GPUs", className: "short", make: words((lease) => lease.gpus.map((grant) => grant.key).join(", ")) },
    { title: "Held", className: "number", make: words((lease) => elapsed(now() - lease.granted)) },
    { title: "Left", className: "amount", make: () => left(now) },
    { title: "Memory", className: "amount", make: memory },
    { title: "State", make: state },
    { title: "", className: "acts", make: () => actions.revokeButton() },
  ];
}

export function leases({ store, actions, clockNow }) {
  const rows = table({
    label: "Leases",
    empty: "Nobody holds a lease.",
    keyOf: (lease) => lease.id,
    columns: leaseColumns(clockNow, actions),
  });
  const intro = el("p", { class: "dim" });
  return {
    node: el("div", { class: "view" }, el("h1", {}, "Leases"), intro, el("section", { class: "panel" }, rows.node)),
    update() {
      text(intro, count(store.leases.total, "lease"));
      const sorted = [...store.leases.rows].sort((one, other) => one.granted - other.granted);
      rows.update(sorted, store.leases.total);
    },
  };
}

function left(now) {
  const node = el("span");
  return {
    node,
    update(lease) {
      const seconds = lease.hold_until === null ? null : lease.hold_until - now();
      const late = seconds !== null && seconds < -0.5;
      text(node, seconds === null ? "no limit" : late ? `${duration(-seconds)} over` : elapsed(seconds));
      attribute(node, "data-kind", late ? "bad" : "calm");
    },
  };
}

function memory() {
  const node = el("span");
  return {
    node,
    update(lease) {
      const declared = lease.gpus.reduce((sum, grant) => sum + grant.declared, 0);
      const seen = lease.gpus.map((grant) => grant.observed).filter((each) => each != null);
      const uses = seen.reduce((sum, each) => sum + each, 0);
      text(node, seen.length ? `${bytes(uses)} of ${bytes(declared)}` : declared ? bytes(declared) : "–");
      attribute(node, "data-kind", seen.length && declared && uses > declared ? "warn" : "calm");
    },
  };
}

function state() {
  const shown = pill();
  return {
    node: shown.node,
    update(lease) {
      const kind = lease.state === "HELD" ? "good" : lease.state === "DETACHED" ? "calm" : "warn";
      shown.update(kind, `${leaseState(lease.state)}${lease.sharing === "SHARED" ? ", shared" : ""}`);
    },
  };
}
