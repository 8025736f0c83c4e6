/**
 * Messages of the contract, as values.
 *
 * Law: pure, and total: whatever a newer arbiter says has a value here.
 */
import { FallbackToCpu, Skipped } from "./errors.js";
import type {
  Declined,
  Ended,
  Queued as QueuedMessage,
  ReleaseResponse,
  YieldRequested,
} from "./gen/gpuarbiter/v1/gpu_arbiter_pb.js";
import {
  type Blocker as BlockerMessage,
  BusyPolicy,
  EndReason,
  type Lease,
  MemoryVerdict,
  WaitReason,
  YieldReason,
} from "./gen/gpuarbiter/v1/lease_pb.js";
import { durationMs, optionalMs } from "./units.js";
import type { Blocker, GrantedGpu, NameBack, Queued, Released, YieldRequest } from "./values.js";

/** The name of an enum's value without its prefix; "" for the unspecified one. */
export function nameOf<E extends Record<string, string | number>>(names: E, number: number): NameBack<E> {
  const name = number === 0 ? "" : (names[number] ?? `UNRECOGNIZED_${number}`);
  return name as NameBack<E>;
}

const ms = (message: Parameters<typeof optionalMs>[0]) => optionalMs(message) ?? 0;

/** A place in the queue. */
export function queuedOf(message: QueuedMessage): Queued {
  return {
    requestId: message.requestId,
    position: message.position,
    queueLength: message.queueLength,
    reason: nameOf(WaitReason, message.reason),
    detail: message.detail,
    estimatedWaitMs: optionalMs(message.estimatedWait),
    blockers: message.blockers.map(blockerOf),
  };
}

function blockerOf(message: BlockerMessage): Blocker {
  const { leaseId, taskType, clientId, gpu } = message;
  return { leaseId, taskType, clientId, gpu, heldMs: ms(message.held) };
}

/** The decline: to the CPU when the arbiter says so, otherwise a skip. */
export function declineOf(message: Declined): Skipped | FallbackToCpu {
  const kind = message.decision === BusyPolicy.FALLBACK_CPU ? FallbackToCpu : Skipped;
  return new kind({
    reason: nameOf(WaitReason, message.reason),
    detail: message.detail,
    waitedMs: ms(message.waited),
    retryAfterMs: optionalMs(message.retryAfter),
    blockers: message.blockers.map(blockerOf),
  });
}

/** A yield request. */
export function yieldOf(message: YieldRequested): YieldRequest {
  return {
    reason: nameOf(YieldReason, message.reason),
    detail: message.detail,
    graceMs: optionalMs(message.grace),
  };
}

/** How a lease ended, from either message that says so; an Ended came before any release. */
export function releasedOf(message: Ended | ReleaseResponse): Released {
  return {
    reason: nameOf(EndReason, message.reason),
    heldMs: ms(message.held),
    alreadyEnded: "alreadyEnded" in message ? message.alreadyEnded : true,
    memoryVerdict: nameOf(MemoryVerdict, message.memoryVerdict),
    memoryPeakBytes: message.memoryPeakBytes === undefined ? undefined : Number(message.memoryPeakBytes),
  };
}

/** The GPUs of a lease, in the order of its visible devices. */
export function gpusOf(lease: Lease): readonly GrantedGpu[] {
  return lease.gpus.map((each) => ({
    key: each.key,
    uuid: each.uuid,
    index: each.index,
    declaredBytes: Number(each.declaredBytes),
    committedBytes: Number(each.committedBytes),
  }));
}

/** How long the request of a lease waited. */
export function queueWaitOf(lease: Lease): number {
  return lease.queueWait === undefined ? 0 : durationMs(lease.queueWait);
}

export type Decline = Skipped | FallbackToCpu;
