/**
 * Work under a lease.
 *
 * Law: in every way out the lease is given back, with the news how the work went; what the work threw counts more than
 * a release that failed.
 */
import type { GpuArbiterClient, LeaseOptions } from "./client.js";
import type { ConsistencyCheck } from "./consistency.js";
import { HeldLease } from "./held-lease.js";
import type { Lease } from "./lease.js";
import { refuseOthers } from "./options.js";
import type { Outcome } from "./outcomes.js";
import { reportOf } from "./reporting.js";
import { timing } from "./timing.js";
import { UnmanagedLease } from "./unmanaged-lease.js";
import type { WorkContext } from "./values.js";
import { onAbort, settled } from "./waiting.js";

/**
 * As for a lease; what the work belongs to, said here or in a `context` of its own; and the work to do where there is no
 * GPU.
 */
export interface WorkOptions<C = undefined, T = never> extends LeaseOptions, WorkContext {
  /** Does the work on the CPU when the arbiter says so (busyPolicy FALLBACK_CPU); it is reported. */
  readonly onCpu?: ((signal: AbortSignal | undefined) => C | Promise<C>) | undefined;
  /** Does the work on the CPU as well now and then, after the GPU was given back, and compares. Needs `onCpu`. */
  readonly consistency?: ConsistencyCheck<T, C> | undefined;
}

export async function runUnderLease<T, C>(
  client: GpuArbiterClient,
  taskType: string,
  work: (lease: Lease) => T | Promise<T>,
  given: WorkOptions<C, T>,
): Promise<Outcome<T, C>> {
  refuseOthers({ work: work ?? "missing", onCpu: given.onCpu });
  if (given.consistency !== undefined && given.onCpu === undefined) {
    throw new TypeError("consistency needs onCpu to compare with");
  }
  const options = { ...given, context: contextOf(given) };
  const acquired = await client.acquire(taskType, options);
  switch (acquired.kind) {
    case "skipped":
      return acquired;
    case "fallbackToCpu":
      return { ...acquired, value: await onCpu(client, taskType, options) };
    case "granted": {
      const value = await onGpu(acquired.lease, work, options.signal);
      const { consistency, onCpu, signal } = options;
      if (onCpu !== undefined) {
        await consistency?.look(taskType, value, () => onCpu(signal));
      }
      return { kind: "granted", value, lease: acquired.lease };
    }
  }
}

/** What is said of the work in either place; the narrower one counts. */
function contextOf(options: LeaseOptions & WorkContext): WorkContext {
  const { jobId, sessionId, utteranceIndex, stage, attributes } = options;
  return { jobId, sessionId, utteranceIndex, stage, attributes, ...options.context };
}

async function onGpu<T>(lease: Lease, work: (lease: Lease) => T | Promise<T>, signal: AbortSignal | undefined) {
  if (!(lease instanceof HeldLease || lease instanceof UnmanagedLease)) {
    throw new TypeError("not a lease of this library");
  }
  const unlink = onAbort(signal, () => lease.stop(signal?.reason));
  let failed: { readonly error: unknown } | undefined;
  try {
    signal?.throwIfAborted();
    return await work(lease);
  } catch (error) {
    failed = { error };
    throw error;
  } finally {
    unlink();
    await lease.leave(lease.reported ?? reportOf(failed, lease.heldMs));
  }
}

async function onCpu<C>(client: GpuArbiterClient, taskType: string, options: WorkOptions<C>): Promise<C> {
  if (options.onCpu === undefined) {
    return undefined as C;
  }
  const began = performance.now();
  let failed: { readonly error: unknown } | undefined;
  try {
    return await options.onCpu(options.signal);
  } catch (error) {
    failed = { error };
    throw error;
  } finally {
    const report = { ...reportOf(failed, performance.now() - began), device: "CPU" } as const;
    // The work is done; that nobody could be told of it is no reason to fail it, or to keep it waiting.
    await settled(client.reportWork(taskType, report, { context: options.context }), timing.reportMs);
  }
}
