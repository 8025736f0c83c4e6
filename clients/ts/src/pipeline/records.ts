/**
 * What the scheduler keeps of sessions, jobs and runs, and what it wants done.
 *
 * Law: only the scheduler changes these; times are in milliseconds of its clock.
 */
import type { Lane } from "./lane.js";
import type { SessionOrder } from "./order.js";
import type { CheckedStage } from "./stage.js";
import type { Cause, Device, JobResult, StageResult, State } from "./values.js";

/** A session with its jobs under way, by index. */
export interface SessionRecord {
  readonly sessionId: string;
  readonly order: SessionOrder<JobRecord>;
  readonly jobs: Map<number, JobRecord>;
}

/** A job under way. */
export class JobRecord {
  readonly results: StageResult[] = [];
  /** When it became ready for the stage that it is in. */
  readyAt: number;
  stage = 0;
  run: Run | undefined;
  state: State = "pending";
  cause: Cause = "";
  error: unknown;
  overAt: number | undefined;

  constructor(
    readonly session: SessionRecord,
    readonly index: number,
    readonly serial: number,
    public value: unknown,
    readonly submittedAt: number,
  ) {
    this.readyAt = submittedAt;
  }

  /** What is delivered of it, once it is over. */
  result(now: number, late: boolean): JobResult {
    const overAt = this.overAt ?? now;
    return {
      sessionId: this.session.sessionId,
      utteranceIndex: this.index,
      state: this.state,
      value: this.state === "done" ? this.value : undefined,
      cause: this.cause,
      error: this.error,
      stages: this.results,
      late,
      tookMs: overAt - this.submittedAt,
      heldBackMs: now - overAt,
    };
  }
}

/** A job in a stage: it has a place there. */
export class Run {
  beganAt: number | undefined;
  device: Device = "";
  abandoned = false;

  constructor(
    readonly job: JobRecord,
    readonly lane: Lane,
    readonly startedAt: number,
  ) {}

  get stage(): CheckedStage {
    return this.lane.stage;
  }

  /** When it is to be given up. */
  get deadline(): number | undefined {
    const { timeoutMs } = this.stage;
    return timeoutMs === undefined || this.abandoned ? undefined : this.startedAt + timeoutMs;
  }
}

/** How a run ended: with a value where `cause` is empty. */
export interface End {
  readonly cause: Cause;
  readonly value?: unknown;
  readonly error?: unknown;
}

export type Effect =
  /** A run is to start. */
  | { readonly kind: "start"; readonly run: Run }
  /** A run is to end as soon as it can: nobody waits for what comes of it. */
  | { readonly kind: "abort"; readonly run: Run; readonly error: Error }
  /** A stage is not done, and why. */
  | { readonly kind: "tell"; readonly job: JobRecord; readonly result: StageResult }
  /** The one result of a job. */
  | { readonly kind: "deliver"; readonly job: JobRecord; readonly result: JobResult };
