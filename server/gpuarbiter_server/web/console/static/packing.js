// Where a lease stands on the timeline, and what part of time is seen. Pure. Moments are seconds.

const MOST_LANES = 12;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600];
const LEAST_SECONDS = 5;
const MOST_NAMES = 200;

/**
 * Spans side by side: what overlaps goes to lanes of its own, as few as can be; beyond twelve they share the last.
 * Returns {placed: [[span, lane]], lanes}.
 */
export function pack(spans, now) {
  const ends = [];
  const placed = [];
  for (const span of [...spans].sort((one, other) => one.begin - other.begin)) {
    let lane = ends.findIndex((end) => end <= span.begin);
    if (lane < 0) lane = Math.min(ends.length, MOST_LANES - 1);
    ends[lane] = Math.max(ends[lane] ?? 0, span.end ?? now);
    placed.push([span, lane]);
  }
  return { placed, lanes: Math.max(1, ends.length) };
}

/** A part of time; `follows`: its end stays at now. */
export class View {
  constructor(seconds, most) {
    this.seconds = seconds;
    this.most = most;
    this.end = null;
  }

  get follows() {
    return this.end === null;
  }

  range(now) {
    const to = this.end ?? now;
    return { from: to - this.seconds, to };
  }

  /** Shows less (factor < 1) or more time around a moment, which stays where it is. */
  zoom(factor, now, around = null) {
    const { from, to } = this.range(now);
    const seconds = Math.min(this.most, Math.max(LEAST_SECONDS, this.seconds * factor));
    if (around !== null && !this.follows) {
      const share = (to - around) / (to - from);
      this.#endAt(around + seconds * share, now);
    }
    this.seconds = seconds;
  }

  /** Moves by a share of what is seen. */
  pan(share, now) {
    this.#endAt(this.range(now).to + share * this.seconds, now);
  }

  follow() {
    this.end = null;
  }

  all() {
    this.seconds = this.most;
    this.end = null;
  }

  #endAt(end, now) {
    this.end = end >= now ? null : Math.max(now - this.most + Math.min(this.seconds, this.most) / 2, end);
  }
}

/** Round moments for an axis, about `wanted` of them. */
export function ticks(from, to, wanted) {
  const step = STEPS.find((each) => (to - from) / each <= wanted) ?? STEPS.at(-1);
  // Round in local time.
  const shift = new Date(from * 1000).getTimezoneOffset() * 60;
  const found = [];
  for (let at = Math.ceil((from - shift) / step) * step + shift; at <= to; at += step) found.push(at);
  return found;
}

/** The same colour for the same name, one of `most`. */
export function colourOf(name, most = 8) {
  let hash = 7;
  for (const letter of name) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
  return hash % most;
}

/** Colours of names, different ones as long as there are any left. */
export class Palette {
  constructor(most = 8) {
    this.most = most;
    this.given = new Map();
  }

  of(name) {
    if (!this.given.has(name)) {
      if (this.given.size >= MOST_NAMES) this.given.clear();
      const taken = new Set(this.given.values());
      let colour = colourOf(name, this.most);
      for (let tried = 0; tried < this.most && taken.has(colour); tried += 1) colour = (colour + 1) % this.most;
      this.given.set(name, colour);
    }
    return this.given.get(name);
  }
}

/** The span next to another one: of the same GPU, before (-1) or after (1) it. */
export function neighbour(spans, current, direction) {
  const sorted = [...spans].sort((one, other) => one.begin - other.begin || (one.id < other.id ? -1 : 1));
  const place = sorted.findIndex((span) => span.id === current?.id);
  return place < 0 ? (sorted.at(-1) ?? null) : (sorted[place + direction] ?? current);
}

/** The span that is at a moment, or else the nearest to it. */
export function nearest(spans, at, now) {
  const distance = (span) => Math.max(0, span.begin - at, at - (span.end ?? now));
  return spans.reduce((best, span) => (best === null || distance(span) < distance(best) ? span : best), null);
}
