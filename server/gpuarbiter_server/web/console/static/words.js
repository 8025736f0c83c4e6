// Figures, moments and reasons in words. Pure.

const UNKNOWN = "–";
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Names of others: without what is not seen, or turns around what follows; never longer than is of use. */
export function clean(name, most = 200) {
  const seen = String(name ?? "").replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "?");
  return seen.length > most ? `${[...seen].slice(0, most - 1).join("")}…` : seen;
}

export function bytes(size) {
  if (size == null) return UNKNOWN;
  let figure = size;
  let unit = 0;
  while (figure >= 1023.95 && unit < UNITS.length - 1) {
    figure /= 1024;
    unit += 1;
  }
  const shown = figure >= 100 || unit === 0 ? figure.toFixed(0) : figure.toFixed(1).replace(/\.0$/, "");
  return `${shown} ${UNITS[unit]}`;
}

export function duration(seconds) {
  if (seconds == null) return UNKNOWN;
  const passed = Math.max(0, seconds);
  if (passed < 9.95) return `${passed.toFixed(1)} s`;
  if (passed < 119.5) return `${Math.round(passed)} s`;
  const whole = Math.round(passed);
  if (whole < 3600) return two(Math.floor(whole / 60), "min", whole % 60, "s");
  const minutes = Math.floor(whole / 60);
  if (minutes < 48 * 60) return two(Math.floor(minutes / 60), "h", minutes % 60, "min");
  return two(Math.floor(minutes / 1440), "d", Math.floor(minutes / 60) % 24, "h");
}

function two(large, unit, small, smaller) {
  return `${large} ${unit}${small ? ` ${small} ${smaller}` : ""}`;
}

/** Time that passes while one looks: in whole seconds, so that figures do not flicker. */
export function elapsed(seconds) {
  return seconds < 9.95 ? `${Math.max(0, Math.floor(seconds))} s` : duration(seconds);
}

export function percent(ratio) {
  return ratio == null ? UNKNOWN : `${Math.round(ratio * 100)} %`;
}

export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

export function clock(moment) {
  const at = new Date(moment * 1000);
  return [at.getHours(), at.getMinutes(), at.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}

const REASONS = {
  MEMORY_RECOVERY: "waits for the memory of a lease that ended to leave the GPU",
  QUEUE_ORDER: "waits for requests ahead of it",
  SEQUENCE: "waits for an earlier index of its sequence",
  QUOTA: "waits for its share of the GPU",
  CONCURRENCY_LIMIT: "its task type or client holds as many leases as it may",
  DRAINING: "too few of its GPUs are in service: drained by an operator",
  GPU_UNHEALTHY: "too few of its GPUs are in service: lost",
  RECOVERY: "waits for the holder of a lease from before the restart to come back, or for its grace to end",
  COOLDOWN: "a lease ended without its holder's word; its processes may still be running",
  JOURNAL: "the journal cannot be written, so nothing can be granted",
  NO_READING: "waits for a reading of the GPU",
  UTILIZATION: "the GPU is too busy for its priority",
  UNSPECIFIED: "its client is gone and may come back",
};

/** Why a request waits: what for, who is in the way and since when. */
export function waitReason(ticket, gpus, leases, now) {
  if (ticket.reason === "GPU_BUSY" || ticket.reason === "MEMORY") return inTheWay(ticket, gpus, leases, now);
  return REASONS[ticket.reason] ?? ticket.reason.toLowerCase().replaceAll("_", " ");
}

function inTheWay(ticket, gpus, leases, now) {
  const served = inService(ticket, gpus);
  const wanted =
    ticket.reason === "MEMORY"
      ? `${bytes(ticket.memory)} on ${which(ticket, served, gpus)}`
      : which(ticket, served, gpus);
  const holding = leases
    .filter((lease) => lease.gpus.some((grant) => served.includes(grant.key)))
    .sort((one, other) => one.granted - other.granted);
  if (holding.length === 0) return `waits for ${wanted}`;
  const oldest = holding[0];
  const by = `by ${clean(oldest.client, 40)} for ${elapsed(now - oldest.granted)}`;
  if (served.length > 1) {
    const where = oldest.gpus.find((grant) => served.includes(grant.key)).key;
    return `waits for ${wanted}; the longest held is ${where}, ${by}`;
  }
  const others = holding.length > 1 ? ` and ${count(holding.length - 1, "other")}` : "";
  return `waits for ${wanted}, held ${by}${others}`;
}

/** The candidates that could serve it; all, where these are too few. */
function inService({ candidates, count: number }, gpus) {
  const out = new Set(gpus.filter((gpu) => gpu.drained || gpu.health === "LOST").map((gpu) => gpu.key));
  const served = candidates.filter((key) => !out.has(key));
  return served.length >= number ? served : candidates;
}

function which({ count: number }, served, gpus) {
  if (served.length === 1) return served[0];
  const some = served.length === gpus.length ? `${served.length} GPUs` : served.join(", ");
  return served.length > number ? `${number === 1 ? "one" : number} of ${some}` : `all of ${some}`;
}

const ENDS = {
  RELEASED: "released",
  YIELDED: "yielded when asked to",
  MAX_HOLD: "held for too long",
  TTL_EXPIRED: "not renewed in time",
  DISCONNECTED: "its connection broke",
  HOLDER_DIED: "its process died",
  REVOKED: "revoked",
  OPERATOR: "revoked by an operator",
  GPU_LOST: "the GPU was lost",
  NOT_RECOVERED: "its holder did not come back after a restart",
  CANCELLED: "cancelled",
  UNKNOWN: "ended; the history does not show how",
};
// What a holder did of its own accord.
const GOOD_ENDS = new Set(["RELEASED", "YIELDED", "CANCELLED", "UNKNOWN", undefined]);

export function endWords(how) {
  return ENDS[how] ?? String(how ?? "").toLowerCase();
}

export function endedBadly(how) {
  return !GOOD_ENDS.has(how);
}

const STATES = {
  HELD: "held",
  YIELDING: "asked to yield",
  DETACHED: "detached",
  RECOVERING: "waits for its holder after a restart",
};

export function leaseState(state) {
  return STATES[state] ?? state.toLowerCase();
}

const MARKS = {
  YIELD_REQUESTED: "asked to yield",
  HOLD_EXCEEDED: "held past its limit",
  MEMORY_OVERUSE: "used more memory than it declared",
  RESIZED: "resized",
  JOINED: "joined again",
  DETACHED: "detached",
  RECOVERED: "back after a restart",
};

export function markWords(kind) {
  return MARKS[kind] ?? kind.toLowerCase().replaceAll("_", " ");
}

export function gpuState(gpu) {
  if (gpu.health === "LOST") return { kind: "bad", words: "lost" };
  if (gpu.drained) return { kind: "warn", words: "drained" };
  if (gpu.cooldown) return { kind: "warn", words: `cooldown, ${elapsed(gpu.cooldown)} at most` };
  if (gpu.health === "STALE") return { kind: "warn", words: "no current reading" };
  if (gpu.health === "UNMONITORED") return { kind: "calm", words: "in service, not monitored" };
  return { kind: "good", words: "in service" };
}

const EVENTS = {
  QUEUED: { words: "queued", group: "queue" },
  GRANTED: { words: "granted", group: "leases", kind: "good" },
  DECLINED: { words: "declined", group: "queue", kind: "warn" },
  FAILED: { words: "failed", group: "queue", kind: "bad" },
  RESIZED: { words: "resized", group: "leases" },
  HOLD_EXCEEDED: { words: "held past its limit", group: "leases", kind: "warn" },
  YIELD_REQUESTED: { words: "asked to yield", group: "leases", kind: "warn" },
  ENDED: { words: "ended", group: "leases" },
  DETACHED: { words: "detached", group: "leases" },
  JOINED: { words: "joined", group: "leases" },
  COOLDOWN_STARTED: { words: "cooldown began", group: "gpus", kind: "warn" },
  COOLDOWN_ENDED: { words: "cooldown is over", group: "gpus" },
  MEMORY_OVERUSE: { words: "used more than declared", group: "leases", kind: "warn" },
  MEMORY_RECOVERED: { words: "memory is back", group: "gpus" },
  GPU_LOST: { words: "GPU lost", group: "gpus", kind: "bad" },
  GPU_RESTORED: { words: "GPU is back", group: "gpus", kind: "good" },
  DRAINED: { words: "drained", group: "operators", kind: "warn" },
  RESUMED: { words: "resumed", group: "operators", kind: "good" },
  CONFIG_UPDATED: { words: "configuration changed", group: "operators" },
  STARTED: { words: "arbiter started", group: "operators" },
  RECOVERED: { words: "back after a restart", group: "leases" },
  STOPPING: { words: "arbiter stops", group: "operators", kind: "warn" },
  WORK_REPORTED: { words: "work reported", group: "leases" },
};

/** What an event is called, to which group it belongs, and how it is to be taken. */
export function eventKind(event) {
  const found = EVENTS[event.type] ?? { words: event.type.toLowerCase().replaceAll("_", " "), group: "leases" };
  const bad = event.type === "ENDED" && endedBadly(event.end);
  return { kind: bad ? "bad" : "calm", ...found, ...(bad ? { kind: "bad" } : {}) };
}

/** The rest of what there is to say of an event. */
export function eventDetail(event) {
  const parts = [];
  if (event.type === "ENDED") parts.push(endWords(event.end));
  if (event.type === "QUEUED" && event.reason) parts.push(event.reason.toLowerCase().replaceAll("_", " "));
  if (event.yield) parts.push(`for ${event.yield.toLowerCase().replaceAll("_", " ")}`);
  if (event.waited != null) parts.push(`waited ${duration(event.waited)}`);
  if (event.held != null) parts.push(`held ${duration(event.held)}`);
  if (event.detail) parts.push(clean(event.detail, 300));
  return parts.join(" · ");
}
