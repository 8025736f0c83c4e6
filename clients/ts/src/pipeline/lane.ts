/**
 * One stage as the scheduler sees it: who waits for a place, who has one, and what came of those before.
 *
 * Law: pure. A place is free again when the run that had it has ended, however long its job has been over by then.
 */
import type { JobRecord } from "./records.js";
import type { CheckedStage } from "./stage.js";
import type { StageResult, StageStatistics } from "./values.js";

export class Lane {
  readonly stage: CheckedStage;
  readonly #waiting = new Set<JobRecord>();
  /** Places taken, by session. */
  readonly #taken = new Map<string, number>();
  #running = 0;
  readonly #states = { done: 0, failed: 0, skipped: 0 };
  #timedOut = 0;
  #waitedMs = 0;
  #longestWaitMs = 0;
  #ranMs = 0;
  #longestRunMs = 0;

  constructor(stage: CheckedStage) {
    this.stage = stage;
  }

  /** It is ready for this stage. */
  join(job: JobRecord): void {
    this.#waiting.add(job);
  }

  /** It does not wait here any more. */
  leave(job: JobRecord): void {
    this.#waiting.delete(job);
  }

  /** Whose turn it is, if there is a place; it has the place then. */
  next(): JobRecord | undefined {
    if (this.#running >= this.stage.concurrency) {
      return undefined;
    }
    const first = new Map<string, JobRecord>();
    for (const job of this.#waiting) {
      const { sessionId } = job.session;
      const known = first.get(sessionId);
      if ((known === undefined || job.index < known.index) && !this.#behind(sessionId)) {
        first.set(sessionId, job);
      }
    }
    const [chosen] = [...first.values()].sort((one, other) => one.serial - other.serial);
    if (chosen !== undefined) {
      this.#waiting.delete(chosen);
      this.#take(chosen, 1);
    }
    return chosen;
  }

  /** Whether who follows in this session would hold a place only to wait for the lease of one that is at work here. */
  #behind(sessionId: string): boolean {
    return this.stage.gpu && this.stage.sequenced && this.#taken.has(sessionId);
  }

  /** Its run has ended. */
  free(job: JobRecord): void {
    this.#take(job, -1);
  }

  #take(job: JobRecord, places: number): void {
    const { sessionId } = job.session;
    const taken = (this.#taken.get(sessionId) ?? 0) + places;
    this.#running += places;
    this.#taken.set(sessionId, taken);
    if (taken === 0) {
      this.#taken.delete(sessionId);
    }
  }

  /** This came of a run. */
  count(result: StageResult): void {
    if (result.state === "done" || result.state === "failed" || result.state === "skipped") {
      this.#states[result.state] += 1;
    }
    this.#timedOut += result.cause === "TIMED_OUT" ? 1 : 0;
    this.#waitedMs += result.waitedMs;
    this.#longestWaitMs = Math.max(this.#longestWaitMs, result.waitedMs);
    this.#ranMs += result.ranMs;
    this.#longestRunMs = Math.max(this.#longestRunMs, result.ranMs);
  }

  /** So far. */
  statistics(): StageStatistics {
    return {
      pending: this.#waiting.size,
      running: this.#running,
      ...this.#states,
      timedOut: this.#timedOut,
      waitedMs: this.#waitedMs,
      longestWaitMs: this.#longestWaitMs,
      ranMs: this.#ranMs,
      longestRunMs: this.#longestRunMs,
    };
  }
}
