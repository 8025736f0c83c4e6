// What is known of the arbiter, as the feed tells it. Law: everything has a bound, and what is told twice counts once.

const MOST_EVENTS = 500;
const MOST_SPANS = 2500;
const MOST_READINGS = 450;
const PARTS = ["arbiter", "gpus", "leases", "queue", "analysis"];

/** Places of the figures of a GPU in a reading; memory is in MiB, utilization in percent. */
export const FIGURES = { utilization: 0, used: 1, committed: 2, unleased: 3 };

export class Store {
  constructor() {
    this.clear();
  }

  clear() {
    this.arbiter = null;
    this.gpus = [];
    this.leases = { total: 0, rows: [] };
    this.queue = { total: 0, rows: [] };
    this.analysis = null;
    // [moment, [utilization, used, committed, unleased] of each GPU, …], oldest first.
    this.readings = [];
    // Leases that were or are held, by id.
    this.spans = new Map();
    // Newest first.
    this.events = [];
    this.told = 0;
    this.toldAt = 0;
    this.frozen = null;
  }

  /** News of the feed; `at` in milliseconds of performance.now(). */
  take(news, at) {
    if (news.first) this.clear();
    for (const part of PARTS) if (news[part] !== undefined) this[part] = news[part];
    this.tell(news.now, at);
    // What is told again is as it was; what is later than news is of before somebody put the clock back.
    const first = news.readings[0]?.[0] ?? Number.POSITIVE_INFINITY;
    this.readings = [...this.readings.filter((row) => row[0] < first), ...news.readings];
    this.readings.splice(0, Math.max(0, this.readings.length - MOST_READINGS));
    for (const span of news.spans) {
      // What has just changed goes to the end, so that the oldest go first.
      this.spans.delete(span.id);
      this.spans.set(span.id, { marks: [], ...span });
    }
    for (const id of this.spans.keys()) {
      if (this.spans.size <= MOST_SPANS) break;
      this.spans.delete(id);
    }
    const newest = this.events[0]?.n ?? 0;
    const events = news.events.filter((event) => event.n > newest);
    if (events.length > 0) this.events = [...events.reverse(), ...this.events].slice(0, MOST_EVENTS);
  }

  /** The arbiter's time, told now. */
  tell(now, at) {
    this.told = now;
    this.toldAt = at;
    this.frozen = null;
  }

  /** Time stands still while the arbiter is away. */
  freeze(at) {
    this.frozen ??= this.now(at);
  }

  /** The arbiter's time, in seconds since 1970. */
  now(at) {
    return this.frozen ?? this.told + (at - this.toldAt) / 1000;
  }

  leasesOn(key) {
    return this.leases.rows.filter((lease) => lease.gpus.some((grant) => grant.key === key));
  }
}
