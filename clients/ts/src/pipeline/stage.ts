/**
 * What a pipeline is made of.
 *
 * Law: what is wrong with a stage is an error when the pipeline is made, not when the first job comes to it.
 */
import type { LeaseOptions } from "../client.js";
import type { Lease } from "../lease.js";
import { acquireRequest, refuseOthers } from "../options.js";
import { type Duration, parseDuration } from "../units.js";
import type { Cause } from "./values.js";

export type OnTrouble = "fail" | "skip";

/** What the work of a stage is told, beside its input. */
export interface StageRun {
  readonly sessionId: string;
  readonly utteranceIndex: number;
  /** Session and utterance, as the arbiter's logs and traces have it. */
  readonly jobId: string;
  /** The stage's name. */
  readonly stage: string;
  /** The lease that it runs under; undefined on the CPU, and in a stage without a GPU. */
  readonly lease: Lease | undefined;
  /** Aborted when nobody waits for this any more: it took too long, was cancelled, or has lost its lease. */
  readonly signal: AbortSignal;
}

/** The work of a stage: what it is given, and where it runs; what it returns goes into the next stage. */
// biome-ignore lint/suspicious/noExplicitAny: what goes from stage to stage is the program's own
export type Work = (value: any, run: StageRun) => unknown;

/** A stage that every job goes through. */
export interface Stage {
  /** Such as "ASR"; letters, digits and `_ . -`, at most 64. */
  readonly name: string;
  /** What it returns, or resolves to, is the input of the next stage. */
  readonly work: Work;
  /** Of its leases; the name unless told. */
  readonly taskType?: string | undefined;
  /** false: it needs no GPU, and no lease is asked for. */
  readonly gpu?: boolean | undefined;
  /** What is asked of a lease; the pipeline itself says context, requestId, sequence and signal. */
  readonly lease?: Omit<LeaseOptions, (typeof OWN)[number]> | undefined;
  /** The work without a GPU, for when the arbiter answers FALLBACK_CPU. */
  readonly onCpu?: Work | undefined;
  /**
   * How many jobs are in it at once, those that wait for a lease included; 2 unless told. The sum over all stages is to
   * stay below what the arbiter's queue_limit has room for.
   */
  readonly concurrency?: number | undefined;
  /**
   * How long a job may be in it, the wait for the lease included; no limit unless told. The work's signal is aborted
   * then, and its place is free once it has ended.
   */
  readonly timeout?: Duration | undefined;
  /**
   * When the work throws, or the lease cannot be had or is lost: "fail" the job (unless told), or "skip" the stage, which
   * passes its input on.
   */
  readonly onFailure?: OnTrouble | undefined;
  /** The same when it takes too long; as onFailure unless told. */
  readonly onTimeout?: OnTrouble | undefined;
  /** The same when the arbiter answers SKIP, or FALLBACK_CPU to a stage without `onCpu`; "skip" unless told. */
  readonly onDecline?: OnTrouble | undefined;
  /**
   * The lower utterance of a session gets its lease first, and the next one once that is given back; true unless told.
   * false: utterances of one session may be at work in this stage side by side.
   */
  readonly sequenced?: boolean | undefined;
}

const OWN = ["context", "requestId", "sequence", "signal"] as const;
const NAME = /^[A-Za-z0-9_.-]{1,64}$/;

/** A stage with everything said. */
export class CheckedStage {
  readonly name: string;
  readonly work: Work;
  readonly taskType: string;
  readonly gpu: boolean;
  readonly lease: LeaseOptions;
  readonly onCpu: Work | undefined;
  readonly concurrency: number;
  readonly timeoutMs: number | undefined;
  readonly sequenced: boolean;
  readonly #policies: Readonly<Partial<Record<Cause, OnTrouble>>>;

  /** Throws a RangeError or TypeError that names what is wrong. */
  constructor(stage: Stage) {
    const { name, work, onFailure = "fail", onDecline = "skip", concurrency = 2, gpu = true } = stage;
    const onTimeout = stage.onTimeout ?? onFailure;
    if (!NAME.test(name)) {
      throw new RangeError(
        `${JSON.stringify(name)} is no name of a stage; letters, digits and _ . - are, at most 64 of them`,
      );
    }
    refuseOthers({ [`work of ${name}`]: work ?? "missing", [`onCpu of ${name}`]: stage.onCpu });
    checkCount(`concurrency of ${name}`, concurrency);
    for (const [which, policy] of Object.entries({ onFailure, onTimeout, onDecline })) {
      if (policy !== "fail" && policy !== "skip") {
        throw new RangeError(`${which} of ${name}: ${String(policy)} is not allowed; write "fail" or "skip"`);
      }
    }
    const own = OWN.filter((each) => Object.hasOwn(stage.lease ?? {}, each));
    if (own.length > 0) {
      throw new RangeError(`lease of ${name}: ${own.join(", ")} is said by the pipeline itself`);
    }
    if (!gpu && (stage.lease ?? stage.onCpu ?? stage.taskType) !== undefined) {
      throw new RangeError(`${name} has gpu: false; taskType, lease and onCpu mean nothing there`);
    }
    const { onQueued, onYield, onLost } = stage.lease ?? {};
    refuseOthers({ onQueued, onYield, onLost });
    acquireRequest(stage.taskType ?? name, stage.lease ?? {}, { traceparent: "", tracestate: "" });
    this.name = name;
    this.work = work;
    this.taskType = stage.taskType ?? name;
    this.gpu = gpu;
    this.lease = stage.lease ?? {};
    this.onCpu = stage.onCpu;
    this.concurrency = concurrency;
    this.timeoutMs = stage.timeout === undefined ? undefined : positive(name, stage.timeout);
    this.sequenced = stage.sequenced ?? true;
    this.#policies = { FAILED: onFailure, TIMED_OUT: onTimeout, DECLINED: onDecline };
  }

  /** What is to be done about it when it is not done, by its cause. */
  policy(cause: Cause): OnTrouble {
    return this.#policies[cause] ?? "fail";
  }
}

/** Throws a RangeError unless it is a whole number from 1 on. */
export function checkCount(name: string, count: number): void {
  if (!Number.isSafeInteger(count) || count < 1) {
    throw new RangeError(`${name}: ${String(count)} is not allowed; write a whole number from 1 on`);
  }
}

function positive(name: string, timeout: Duration): number {
  const ms = parseDuration(timeout);
  if (ms === 0) {
    throw new RangeError(`timeout of ${name}: ${timeout} leaves no time; leave it out for no limit`);
  }
  return ms;
}
