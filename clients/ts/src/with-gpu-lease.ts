/** The shortest way: one client per process, made of the environment when it is first needed. */
import { GpuArbiterClient } from "./client.js";
import type { Lease } from "./lease.js";
import type { Outcome } from "./outcomes.js";
import { runUnderLease, type WorkOptions } from "./work.js";

let shared: GpuArbiterClient | undefined;

/** The client of this process, for the arbiter that the environment names; a new one when it was closed. */
export function sharedClient(): GpuArbiterClient {
  if (shared === undefined || shared.closed) {
    shared = new GpuArbiterClient();
  }
  return shared;
}

/**
 * Acquires a lease, runs `work(lease)`, and releases it with a report of how the work went, in every way out. As
 * `GpuArbiterClient.withGpuLease`, with the client of the context or the one of this process.
 */
export function withGpuLease<T, C = undefined>(
  taskType: string,
  work: (lease: Lease) => T | Promise<T>,
  context: WorkOptions<C, T> & { readonly client?: GpuArbiterClient | undefined } = {},
): Promise<Outcome<T, C>> {
  return runUnderLease(context.client ?? sharedClient(), taskType, work, context);
}
