/**
 * The scheduler's effects, done.
 *
 * Law: decides nothing. An event goes into the scheduler with its time, and what comes back is done in order, one effect
 * at a time, also where doing one brings the next event about. A job's work and callbacks run in the asynchronous context
 * (the span of a trace, for instance) in which it was submitted, whoever's end makes room for it.
 */
import { AsyncResource } from "node:async_hooks";
import { randomUUID } from "node:crypto";
import type { Logger } from "../logger.js";
import { settled } from "../waiting.js";
import type { Effect, End, JobRecord, Run, SessionRecord } from "./records.js";
import { type LeaseSource, runStage } from "./running.js";
import { Scheduler } from "./scheduler.js";
import type { CheckedStage } from "./stage.js";
import type { Cause, Device, JobResult, PipelineStatistics, StageResult } from "./values.js";

/** Called with what came of a stage; may be asynchronous. */
export type Told = ((result: StageResult) => unknown) | undefined;

/** Timers hold no more than 31 bits. */
const LONGEST_MS = 2 ** 31 - 1;

interface Submitted {
  readonly context: AsyncResource;
  readonly out: (result: JobResult) => void;
}

interface Running {
  readonly aborting: AbortController;
  readonly ended: Promise<void>;
}

export class Engine {
  readonly stages: readonly CheckedStage[];
  readonly logger: Logger;
  readonly #client: LeaseSource;
  readonly #scheduler: Scheduler;
  readonly #told: Readonly<Partial<Record<Cause, Told>>>;
  readonly #id = randomUUID().slice(0, 8);
  readonly #submitted = new Map<JobRecord, Submitted>();
  readonly #running = new Map<Run, Running>();
  readonly #telling = new Set<Promise<void>>();
  readonly #effects: Effect[] = [];
  #doing = false;
  #timer: NodeJS.Timeout | undefined;

  /** `told`: who is called with a stage's result, by its cause. */
  constructor(
    client: LeaseSource,
    stages: readonly [CheckedStage, ...CheckedStage[]],
    holdBackMs: number | undefined,
    told: Readonly<Partial<Record<Cause, Told>>>,
    logger: Logger,
  ) {
    this.stages = stages;
    this.logger = logger;
    this.#client = client;
    this.#scheduler = new Scheduler(stages, holdBackMs);
    this.#told = told;
  }

  /** A new session. */
  open(sessionId: string, firstIndex: number): SessionRecord {
    return this.#scheduler.open(sessionId, firstIndex);
  }

  /** A new job; `out` gets its result, in its turn. */
  submit(
    session: SessionRecord,
    index: number | undefined,
    value: unknown,
    out: (result: JobResult) => void,
  ): JobRecord {
    const [job, effects] = this.#scheduler.submit(session, index, value, now());
    this.#submitted.set(job, { context: new AsyncResource("PipelineJob"), out });
    this.#do(effects);
    return job;
  }

  /** No more jobs come. */
  end(session: SessionRecord): void {
    this.#do(this.#scheduler.end(session, now()));
  }

  /** Gives up those that are not over; how many. */
  cancel(jobs: Iterable<JobRecord>): number {
    const live = [...jobs].filter((job) => job.overAt === undefined);
    this.#do(this.#scheduler.cancel(live, now()));
    return live.length;
  }

  /** Gives up every job that is not over; how many. */
  cancelAll(): number {
    return this.cancel(this.#submitted.keys());
  }

  statistics(): PipelineStatistics {
    return this.#scheduler.statistics();
  }

  /** Waits for callbacks, and for work that was told to end, for at most so long. */
  async settle(ms: number): Promise<void> {
    const ending = [...this.#running.values()].map((each) => each.ended);
    await settled(Promise.all([...ending, ...this.#telling]), ms);
    for (const run of this.#running.keys()) {
      this.logger.warn(`work of ${run.stage.name} did not end when told to, and is left alone`);
    }
  }

  #ended(run: Run, end: End): void {
    this.#running.delete(run);
    this.#do(this.#scheduler.ended(run, end, now()));
  }

  #do(effects: readonly Effect[]): void {
    this.#effects.push(...effects);
    if (this.#doing) {
      return;
    }
    this.#doing = true;
    try {
      for (let effect = this.#effects.shift(); effect !== undefined; effect = this.#effects.shift()) {
        this.#doOne(effect);
      }
    } finally {
      this.#doing = false;
    }
    this.#setTimer();
  }

  #doOne(effect: Effect): void {
    switch (effect.kind) {
      case "start":
        this.#start(effect.run);
        break;
      case "abort":
        this.#running.get(effect.run)?.aborting.abort(abortion(effect.error));
        break;
      case "deliver": {
        const submitted = this.#submitted.get(effect.job);
        this.#submitted.delete(effect.job);
        submitted?.out(effect.result);
        break;
      }
      case "tell":
        this.#tell(effect.job, effect.result);
    }
  }

  /** Runs it where the job was submitted. */
  #within<T>(job: JobRecord, work: () => T): T {
    const submitted = this.#submitted.get(job);
    return submitted === undefined ? work() : submitted.context.runInAsyncScope(work);
  }

  #start(run: Run): void {
    const aborting = new AbortController();
    const around = {
      client: this.#client,
      pipelineId: this.#id,
      signal: aborting.signal,
      began: (device: Device) => this.#scheduler.began(run, device, now()),
    };
    // Not at once: the work may bring the next event about, and this run is to be known by then.
    const ending = this.#within(run.job, async () => {
      await undefined;
      return await runStage(run, around);
    });
    const ended = ending.then((end) => this.#ended(run, end));
    this.#running.set(run, { aborting, ended });
  }

  #tell(job: JobRecord, result: StageResult): void {
    const callback = this.#told[result.cause];
    if (callback === undefined) {
      return;
    }
    const telling = this.#within(job, () => call(() => callback(result))).catch((error: unknown) => {
      this.logger.error(`the callback about ${result.stage} threw: ${String(error)}`);
    });
    this.#telling.add(telling);
    telling.finally(() => this.#telling.delete(telling));
  }

  #setTimer(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const deadline = this.#scheduler.nextDeadline;
    if (deadline !== undefined) {
      const wake = () => this.#do(this.#scheduler.wake(now()));
      this.#timer = setTimeout(wake, Math.min(Math.ceil(deadline - now()), LONGEST_MS));
    }
  }
}

/** Calls it, later than now. */
export async function call(callback: () => unknown): Promise<void> {
  await undefined;
  await callback();
}

/** The reason of a signal; by its name, the arbiter is told that the work was cancelled. */
function abortion(error: Error): Error {
  const reason = new Error(error.message, { cause: error });
  reason.name = "AbortError";
  return reason;
}

function now(): number {
  return performance.now();
}
