/**
 * What comes of jobs and stages.
 *
 * Law: `state` says what became of it, `cause` why. Every job that was submitted has exactly one JobResult.
 */

export type State = "pending" | "running" | "done" | "failed" | "skipped";
export type Cause = "" | "FAILED" | "TIMED_OUT" | "DECLINED" | "SKIPPED" | "CANCELLED";
export type Device = "" | "GPU" | "CPU";

class Named extends Error {
  constructor(message?: string) {
    super(message);
    this.name = new.target.name;
  }
}

/** Thrown by the work of a stage: nothing is to be done for this job any more, and that is no failure. */
export class SkipJob extends Named {}

/** A stage took longer than its timeout. */
export class StageTimeout extends Named {}

/** The job was cancelled: by itself, with its session, or with the pipeline. */
export class JobCancelled extends Named {}

/** The pipeline, or the session, takes no more jobs. */
export class PipelineClosed extends Named {}

/** What came of one stage of a job. */
export interface StageResult {
  readonly sessionId: string;
  readonly utteranceIndex: number;
  /** Its name. */
  readonly stage: string;
  /**
   * "done"; "skipped": the job went on with what the stage was given, or was skipped as a whole; "failed": so did the
   * job.
   */
  readonly state: State;
  /**
   * Why it is not done: "FAILED" (its work threw, or the lease could not be had), "TIMED_OUT", "DECLINED" (by the
   * arbiter), "SKIPPED" (its work threw SkipJob), "CANCELLED".
   */
  readonly cause: Cause;
  /** What was thrown, if anything. */
  readonly error: unknown;
  /** Where the work ran; "" where it did not begin, or needs none of the two. */
  readonly device: Device;
  /** From when the job was ready for the stage until the work began: for the stage's place and for a lease. */
  readonly waitedMs: number;
  /** How long the work took. */
  readonly ranMs: number;
}

/** The one result of a job. */
export interface JobResult {
  readonly sessionId: string;
  readonly utteranceIndex: number;
  /** "done", "failed" or "skipped". */
  readonly state: State;
  /** What the last stage made of it; undefined unless it is done. */
  readonly value: unknown;
  /** Why it is not done, as of the stage that decided it. */
  readonly cause: Cause;
  /** What was thrown there. */
  readonly error: unknown;
  /** Of the stages that it began, in order. */
  readonly stages: readonly StageResult[];
  /** Results of higher indices were delivered before, because this one had held them back for long enough. */
  readonly late: boolean;
  /** From its submission until it was over. */
  readonly tookMs: number;
  /** From then until its turn. */
  readonly heldBackMs: number;
}

/** A stage so far. */
export interface StageStatistics {
  /** Jobs that wait for one of its places. */
  readonly pending: number;
  /** Its places that are taken: waiting for a lease, at work, or not yet out of it after a timeout. */
  readonly running: number;
  /** How often it ended so. */
  readonly done: number;
  readonly failed: number;
  readonly skipped: number;
  /** How many of those that failed or were skipped took too long. */
  readonly timedOut: number;
  /** Until the work began, over all, and at most. */
  readonly waitedMs: number;
  readonly longestWaitMs: number;
  /** The work itself. */
  readonly ranMs: number;
  readonly longestRunMs: number;
}

/** A pipeline so far. */
export interface PipelineStatistics {
  /** Jobs that were submitted and have no result yet, or one that waits for its turn. */
  readonly inFlight: number;
  /** Those of them whose result waits for its turn. */
  readonly heldBack: number;
  /** Jobs delivered, by state. */
  readonly done: number;
  readonly failed: number;
  readonly skipped: number;
  /** How many of those came out of their place. */
  readonly late: number;
  /** By name, in order. */
  readonly stages: Readonly<Record<string, StageStatistics>>;
}
