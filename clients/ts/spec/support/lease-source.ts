/** A client that is none: leases on so many GPUs, first come first served, answered as the test says. */
import type {
  Acquired,
  FallbackToCpu,
  GpuArbiterClient,
  Lease,
  LeaseOptions,
  Outcome,
  Skipped,
  WorkOptions,
} from "../../src/index.js";
import { LeaseLost } from "../../src/index.js";
import { Places } from "../../src/pipeline/places.js";

export type Answer = Exclude<Acquired, { kind: "granted" }> | Error;

/** A lease on one of the GPUs. */
export class FakeLease {
  readonly #aborting = new AbortController();
  constructor(readonly taskType: string) {}

  get signal(): AbortSignal {
    return this.#aborting.signal;
  }

  /** It is revoked. */
  lose(): void {
    this.#aborting.abort(new LeaseLost("it was revoked", { reason: "REVOKED" }));
  }

  stop(reason: unknown): void {
    this.#aborting.abort(reason);
  }
}

export class LeaseSource implements Pick<GpuArbiterClient, "withGpuLease"> {
  readonly asked: { readonly taskType: string; readonly options: LeaseOptions }[] = [];
  readonly held = new Set<FakeLease>();
  /** One for each request, by task type. */
  readonly answers: Record<string, Answer[]> = {};
  onGranted: (lease: FakeLease) => void = () => {};
  readonly #free: Places;

  constructor(gpus = 2) {
    this.#free = new Places(gpus);
  }

  async withGpuLease<T, C = undefined>(
    taskType: string,
    work: (lease: Lease) => T | Promise<T>,
    options: WorkOptions<C, T> = {},
  ): Promise<Outcome<T, C>> {
    this.asked.push({ taskType, options });
    const answer = this.answers[taskType]?.shift();
    if (answer instanceof Error) {
      throw answer;
    }
    if (answer?.kind === "skipped") {
      return answer;
    }
    if (answer !== undefined) {
      return { ...answer, value: (await options.onCpu?.(options.signal)) as C };
    }
    await this.#free.take(options.signal);
    const fake = new FakeLease(taskType);
    const lease = fake as unknown as Lease;
    const stop = () => fake.stop(options.signal?.reason);
    options.signal?.addEventListener("abort", stop);
    this.held.add(fake);
    this.onGranted(fake);
    try {
      return { kind: "granted", value: await work(lease), lease };
    } finally {
      this.held.delete(fake);
      options.signal?.removeEventListener("abort", stop);
      this.#free.giveBack();
    }
  }
}

export const skipped = (decline: Skipped): Answer => ({ kind: "skipped", decline });
export const toCpu = (decline: FallbackToCpu): Answer => ({ kind: "fallbackToCpu", decline });
