/**
 * The pipeline as programs use it.
 *
 * Law: what is wrong with how it is made is an error here; everything else is the engine's.
 */
import { type Logger, stderrLogger } from "../logger.js";
import { refuseOthers } from "../options.js";
import { type Duration, parseDuration } from "../units.js";
import { Engine, type Told } from "./engine.js";
import { Places } from "./places.js";
import type { LeaseSource } from "./running.js";
import { checkIndex, PipelineSession } from "./session.js";
import { CheckedStage, checkCount, type Stage } from "./stage.js";
import { type JobResult, PipelineClosed, type PipelineStatistics } from "./values.js";

/** Work that was told to end has so long, and its lease is given back within five seconds. */
const ABORT_MS = 10_000;
const MAX_SESSION_ID = 200;
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]/u;

/** How a pipeline works. */
export interface PipelineOptions {
  /** How long at most a result waits for those of lower indices; "5s" unless told; null: as long as it takes. */
  readonly holdBack?: Duration | null | undefined;
  /** How many jobs may be under way, until `onResult` is done with their results; 64 unless told. */
  readonly maxInFlight?: number | undefined;
  /** The same for each session, so that none takes all; 16 unless told. */
  readonly maxInFlightPerSession?: number | undefined;
  /** Called with the StageResult of each stage whose work threw or whose lease could not be had. */
  readonly onFailure?: Told;
  /** The same for those that took too long. */
  readonly onTimeout?: Told;
  /** The same for those that the arbiter declined, or whose work threw SkipJob. */
  readonly onSkip?: Told;
  /** Where warnings go; stderr unless told. */
  readonly logger?: Logger | undefined;
}

/** How a session works. */
export interface SessionOptions {
  /** The lowest utteranceIndex that is waited for; 0 unless told. */
  readonly firstIndex?: number | undefined;
  /**
   * Called with each result in its turn, one at a time; a promise is awaited, and its jobs count as in flight until it
   * is done with them.
   */
  readonly onResult?: ((result: JobResult) => unknown) | undefined;
}

/**
 * Takes jobs through stages. The client stays yours to close. Throws a RangeError or TypeError that names what is wrong
 * with a stage or an option.
 */
export class Pipeline implements AsyncDisposable {
  readonly #engine: Engine;
  readonly #places: Places;
  readonly #perSession: number;
  readonly #sessions = new Map<string, PipelineSession>();
  #closed = false;

  constructor(client: LeaseSource, stages: readonly Stage[], options: PipelineOptions = {}) {
    const { holdBack = "5s", maxInFlight = 64, maxInFlightPerSession = 16, onFailure, onTimeout, onSkip } = options;
    const [first, ...others] = stages.map((stage) => new CheckedStage(stage));
    const names = stages.map((stage) => stage.name);
    if (first === undefined || new Set(names).size < names.length) {
      throw new RangeError(`stages: ${JSON.stringify(names)} is not allowed; at least one, and each name once`);
    }
    refuseOthers({ onFailure, onTimeout, onSkip });
    checkCount("maxInFlight", maxInFlight);
    checkCount("maxInFlightPerSession", maxInFlightPerSession);
    const told = { FAILED: onFailure, TIMED_OUT: onTimeout, DECLINED: onSkip, SKIPPED: onSkip };
    const holdBackMs = holdBack === null ? undefined : parseDuration(holdBack);
    this.#engine = new Engine(client, [first, ...others], holdBackMs, told, options.logger ?? stderrLogger);
    this.#places = new Places(maxInFlight);
    this.#perSession = maxInFlightPerSession;
  }

  /**
   * Opens a session of this name, 1 to 200 printable characters; it is free again once the session has ended. Throws a
   * RangeError when there is such a session, or an option is none; PipelineClosed when the pipeline was closed.
   */
  session(sessionId: string, options: SessionOptions = {}): PipelineSession {
    const { firstIndex = 0, onResult } = options;
    if (this.#closed) {
      throw new PipelineClosed("the pipeline is closed");
    }
    const { length } = [...sessionId];
    if (UNPRINTABLE.test(sessionId) || length < 1 || length > MAX_SESSION_ID) {
      const allowed = `write 1 to ${MAX_SESSION_ID} printable characters`;
      throw new RangeError(`sessionId: ${JSON.stringify(sessionId)} is not allowed; ${allowed}`);
    }
    checkIndex("firstIndex", firstIndex);
    refuseOthers({ onResult });
    for (const [name, session] of this.#sessions) {
      if (session.over) {
        this.#sessions.delete(name);
      }
    }
    if (this.#sessions.has(sessionId)) {
      throw new RangeError(`session ${JSON.stringify(sessionId)} is open already; end it first`);
    }
    const places = { own: new Places(this.#perSession), all: this.#places };
    const session = new PipelineSession(this.#engine, this.#engine.open(sessionId, firstIndex), places, onResult);
    this.#sessions.set(sessionId, session);
    return session;
  }

  /** How it stands, and what came of everything so far. */
  statistics(): PipelineStatistics {
    return this.#engine.statistics();
  }

  /** Gives up all jobs that are not over, and returns how many; the pipeline goes on. */
  cancel(): number {
    return this.#engine.cancelAll();
  }

  /**
   * Takes no more jobs, and ends: with everything done, or, with `drain: false`, with everything cancelled. Every job
   * has its result then. Work that does not end when it is told to is waited for for ten seconds. An abort of the signal
   * ends the draining by cancelling what is left.
   */
  async close(options: { readonly drain?: boolean; readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    const { drain = true, signal } = options;
    this.#closed = true;
    this.#places.refuse(new PipelineClosed("the pipeline is closed"));
    const abort = () => this.cancel();
    if (!drain || signal?.aborted) {
      this.cancel();
    }
    signal?.addEventListener("abort", abort, { once: true });
    await Promise.all([...this.#sessions.values()].map((session) => session.end()));
    signal?.removeEventListener("abort", abort);
    await this.#engine.settle(ABORT_MS);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
