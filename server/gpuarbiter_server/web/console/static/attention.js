// What somebody should look at now, the worst first. Pure.

import { bytes, clean, count, duration, gpuState } from "./words.js";

const RANKS = { bad: 0, warn: 1 };
const MOST = 8;
const LONG_WAIT_SECONDS = 60;
const MUCH_UNLEASED = 0.2;

/** A list of {kind, what, why, link}; at most eight, and how many more there are. */
export function attention(store, now) {
  const found = [...ofArbiter(store), ...store.gpus.flatMap(ofGpu), ...ofLeases(store, now), ...ofQueue(store, now)];
  if (store.analysis?.rows) found.push(...ofAnalysis(store.analysis));
  found.sort((one, other) => RANKS[one.kind] - RANKS[other.kind]);
  return { shown: found.slice(0, MOST), more: Math.max(0, found.length - MOST) };
}

function ofArbiter({ arbiter, gpus }) {
  const found = [];
  if (arbiter?.journal_fault)
    found.push({
      kind: "bad",
      what: "Nothing can be granted",
      why: `the journal cannot be written: ${arbiter.journal_fault}`,
    });
  if (arbiter?.stopping) found.push({ kind: "bad", what: "The arbiter is stopping", why: "it takes no new requests" });
  if (arbiter && !arbiter.nvml_up && gpus.some((gpu) => gpu.source === "nvml"))
    found.push({ kind: "bad", what: "The driver does not answer", why: "NVML is down; the figures are old" });
  return found;
}

function ofGpu(gpu) {
  const found = [];
  const link = `#gpu=${encodeURIComponent(gpu.key)}`;
  const state = gpuState(gpu);
  if (state.kind === "bad" || state.kind === "warn")
    found.push({ kind: state.kind, what: `${gpu.key}: ${state.words}`, why: clean(gpu.why), link });
  if (gpu.waiting >= gpu.waiting_limit && gpu.waiting > 0)
    found.push({
      kind: "warn",
      what: `${gpu.key}: the queue is full`,
      why: `${gpu.waiting} of ${gpu.waiting_limit} wait`,
      link,
    });
  if (gpu.unleased > gpu.total * MUCH_UNLEASED)
    found.push({ kind: "warn", what: `${gpu.key}: ${bytes(gpu.unleased)} in use without a lease`, why: "", link });
  return found;
}

function ofLeases({ leases }, now) {
  return leases.rows
    .filter((lease) => lease.hold_until !== null && now - lease.hold_until > 1)
    .map((lease) => ({
      kind: "bad",
      what: `${clean(lease.client, 60)} is ${duration(now - lease.hold_until)} past its limit`,
      why: `${lease.task} on ${lease.gpus.map((grant) => grant.key).join(", ")}`,
      link: "#leases",
    }));
}

function ofQueue({ queue }, now) {
  const long = queue.rows.filter((ticket) => now - ticket.since > LONG_WAIT_SECONDS);
  if (long.length === 0) return [];
  const longest = Math.max(...long.map((ticket) => now - ticket.since));
  const why = `the longest for ${duration(longest)}`;
  return [
    { kind: "warn", what: `${count(long.length, "request")} waiting for more than a minute`, why, link: "#queue" },
  ];
}

function ofAnalysis({ rows }) {
  return rows
    .filter((row) => row.verdict === "suspicious")
    .map((row) => ({ kind: "warn", what: `${row.gpu}: looks wasted`, why: row.reason, link: "#analysis" }));
}
