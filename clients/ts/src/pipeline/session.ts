/**
 * A session as programs use it: jobs go in under back-pressure, results come out in order.
 *
 * Law: a job's place in flight is free again once `onResult` is done with its result, so that a slow consumer slows
 * whoever submits, and nothing piles up.
 */
import { AsyncResource } from "node:async_hooks";
import type { Abortable } from "../lease.js";
import { call, type Engine } from "./engine.js";
import type { Places } from "./places.js";
import type { JobRecord, SessionRecord } from "./records.js";
import { type JobResult, PipelineClosed, type State } from "./values.js";

/** A job that was submitted. */
export class Job {
  readonly #engine: Engine;
  readonly #record: JobRecord;
  /** Its one result, when its turn has come; it never rejects. */
  readonly result: Promise<JobResult>;

  /** @internal */
  constructor(engine: Engine, record: JobRecord, result: Promise<JobResult>) {
    this.#engine = engine;
    this.#record = record;
    this.result = result;
  }

  get sessionId(): string {
    return this.#record.session.sessionId;
  }

  /** Its place in the session. */
  get utteranceIndex(): number {
    return this.#record.index;
  }

  /** Pending between two stages as before the first. */
  get state(): State {
    return this.#record.state;
  }

  /** Every stage, in order, by its state for this job. */
  get stages(): Readonly<Record<string, State>> {
    const states: Record<string, State> = {};
    for (const stage of this.#engine.stages) {
      states[stage.name] = "pending";
    }
    for (const result of this.#record.results) {
      states[result.stage] = result.state;
    }
    if (this.#record.run !== undefined) {
      states[this.#record.run.stage.name] = "running";
    }
    return states;
  }

  /** Gives it up: its result is "failed" by the cause CANCELLED. false: it is over already. */
  cancel(): boolean {
    return this.#engine.cancel([this.#record]) === 1;
  }
}

/** How a job is submitted. */
export interface SubmitOptions extends Abortable {
  /** 0 or more, once each; the one after the highest so far unless told. */
  readonly utteranceIndex?: number | undefined;
}

/** Jobs whose results come out in order; made by `Pipeline.session`. */
export class PipelineSession implements AsyncDisposable {
  readonly #engine: Engine;
  readonly #record: SessionRecord;
  readonly #ownPlaces: Places;
  readonly #places: Places;
  readonly #onResult: ((result: JobResult) => unknown) | undefined;
  /** Where the session was opened; results come out wherever the last stage ends. */
  readonly #context = new AsyncResource("PipelineSession");
  readonly #results: JobResult[] = [];
  #handingOut = false;
  #ended = false;
  #over = false;
  #say: () => void = () => {};
  readonly #allOut = new Promise<void>((resolve) => {
    this.#say = resolve;
  });

  /** @internal */
  constructor(
    engine: Engine,
    record: SessionRecord,
    places: { readonly own: Places; readonly all: Places },
    onResult: ((result: JobResult) => unknown) | undefined,
  ) {
    this.#engine = engine;
    this.#record = record;
    this.#ownPlaces = places.own;
    this.#places = places.all;
    this.#onResult = onResult;
  }

  get sessionId(): string {
    return this.#record.sessionId;
  }

  /** It was ended, and everything is out. */
  get over(): boolean {
    return this.#over;
  }

  /**
   * Hands a job in, as soon as fewer are in flight than may be; `value` is what the first stage is given. Throws a
   * RangeError when the index is there already, or is none; PipelineClosed when the session was ended, or the pipeline
   * closed; and the signal's reason.
   */
  async submit(value: unknown, options: SubmitOptions = {}): Promise<Job> {
    const { utteranceIndex, signal } = options;
    if (utteranceIndex !== undefined) {
      checkIndex("utteranceIndex", utteranceIndex);
    }
    this.#checkOpen();
    await this.#ownPlaces.take(signal);
    try {
      await this.#places.take(signal);
      try {
        this.#checkOpen();
        return this.#submit(value, utteranceIndex);
      } catch (error) {
        this.#places.giveBack();
        throw error;
      }
    } catch (error) {
      this.#ownPlaces.giveBack();
      throw error;
    }
  }

  #submit(value: unknown, utteranceIndex: number | undefined): Job {
    let deliver: (result: JobResult) => void = () => {};
    const result = new Promise<JobResult>((resolve) => {
      deliver = resolve;
    });
    const out = (came: JobResult) => {
      deliver(came);
      this.#out(came);
    };
    return new Job(this.#engine, this.#engine.submit(this.#record, utteranceIndex, value, out), result);
  }

  /** Gives up all its jobs that are not over, and returns how many; the session goes on. */
  cancel(): number {
    return this.#engine.cancel(this.#record.jobs.values());
  }

  /** No more jobs come; does not wait for those that are under way. */
  finish(): void {
    if (this.#ended) {
      return;
    }
    this.#ended = true;
    this.#ownPlaces.refuse(this.#closed());
    this.#engine.end(this.#record);
    this.#lookWhetherOver();
  }

  /** No more jobs come: waits until all results are out, and `onResult` is done with them. */
  async end(): Promise<void> {
    this.finish();
    await this.#allOut;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }

  #closed(): PipelineClosed {
    return new PipelineClosed(`session ${JSON.stringify(this.sessionId)} has ended`);
  }

  #checkOpen(): void {
    if (this.#ended) {
      throw this.#closed();
    }
  }

  #out(result: JobResult): void {
    this.#results.push(result);
    if (!this.#handingOut) {
      this.#handingOut = true;
      void this.#context.runInAsyncScope(() => this.#handOut());
    }
  }

  async #handOut(): Promise<void> {
    for (let result = this.#results.shift(); result !== undefined; result = this.#results.shift()) {
      const came = result;
      await call(() => this.#onResult?.(came)).catch((error: unknown) => {
        this.#engine.logger.error(`onResult of session ${this.sessionId} threw: ${String(error)}`);
      });
      this.#ownPlaces.giveBack();
      this.#places.giveBack();
    }
    this.#handingOut = false;
    this.#lookWhetherOver();
  }

  #lookWhetherOver(): void {
    if (this.#ended && this.#record.order.over && !this.#handingOut) {
      this.#over = true;
      this.#say();
    }
  }
}

/** Throws a RangeError unless it is a whole number from 0 on. */
export function checkIndex(name: string, index: number): void {
  if (!Number.isSafeInteger(index) || index < 0) {
    throw new RangeError(`${name}: ${String(index)} is not allowed; write a whole number from 0 on`);
  }
}
