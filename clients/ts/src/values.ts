/**
 * What callers hand in and get back.
 *
 * Law: enum values are the contract's names without their prefix ("GPU_BUSY"), durations are in milliseconds, memory
 * is in bytes. A value that this library does not know yet comes as "UNRECOGNIZED_17"; "" stands for none.
 */
import type { ErrorReason } from "./gen/gpuarbiter/v1/error_pb.js";
import type * as wire from "./gen/gpuarbiter/v1/lease_pb.js";
import type { Duration, Size } from "./units.js";

/** The names of a generated enum, as they are handed in. */
export type NameOf<E> = Exclude<keyof E, "UNSPECIFIED"> & string;
/** The names of a generated enum, as they come back. */
export type NameBack<E> = NameOf<E> | "" | `UNRECOGNIZED_${number}`;

export type BusyPolicyName = NameOf<typeof wire.BusyPolicy>;
export type PlacementName = NameOf<typeof wire.Placement>;
export type WorkResultName = NameOf<typeof wire.WorkResult>;
export type WorkDeviceName = NameOf<typeof wire.WorkDevice>;
export type SharingName = NameBack<typeof wire.Sharing>;
export type WaitReasonName = NameBack<typeof wire.WaitReason>;
export type YieldReasonName = NameBack<typeof wire.YieldReason>;
export type MemoryVerdictName = NameBack<typeof wire.MemoryVerdict>;
/** Why a lease ended: the contract's EndReason. */
export type EndReasonName = NameBack<typeof wire.EndReason>;
/** The contract's ErrorReason; any text from an arbiter that is newer than this library. */
export type ErrorReasonName = NameOf<typeof ErrorReason> | "" | (string & {});

/** Who and what a lease belongs to in the caller's world; goes to logs and traces. */
export interface WorkContext {
  readonly jobId?: string | undefined;
  readonly sessionId?: string | undefined;
  readonly utteranceIndex?: number | undefined;
  readonly stage?: string | undefined;
  readonly attributes?: Readonly<Record<string, string>> | undefined;
}

/** What a holder tells about the work it did. */
export interface WorkReport {
  /** "OK" unless told. */
  readonly result?: WorkResultName | undefined;
  /** "GPU" unless told. */
  readonly device?: WorkDeviceName | undefined;
  readonly workItems?: number | undefined;
  readonly peakMemory?: Size | undefined;
  readonly duration?: Duration | undefined;
}

/** One GPU of a lease. */
export interface GrantedGpu {
  readonly key: string;
  readonly uuid: string;
  readonly index: number;
  readonly declaredBytes: number;
  readonly committedBytes: number;
}

/** A lease in the way of a request. */
export interface Blocker {
  readonly leaseId: string;
  readonly taskType: string;
  readonly clientId: string;
  readonly gpu: string;
  readonly heldMs: number;
}

/** Where a request stands in the queue: position 1 is the head. */
export interface Queued {
  readonly requestId: string;
  readonly position: number;
  readonly queueLength: number;
  readonly reason: WaitReasonName;
  readonly detail: string;
  /** A best guess; undefined when there is nothing to guess from. */
  readonly estimatedWaitMs: number | undefined;
  readonly blockers: readonly Blocker[];
}

/** The arbiter asks for the GPU back; it stands until the lease ends. */
export interface YieldRequest {
  readonly reason: YieldReasonName;
  readonly detail: string;
  /** From its arrival until the lease is revoked; undefined when it is only a request. */
  readonly graceMs: number | undefined;
}

/** How a lease ended. */
export interface Released {
  /** Why; "" when the arbiter no longer knows. */
  readonly reason: EndReasonName | (string & {});
  readonly heldMs: number;
  /** It was over before it was released. */
  readonly alreadyEnded: boolean;
  readonly memoryVerdict: MemoryVerdictName;
  readonly memoryPeakBytes: number | undefined;
}

/** Whether a fencing token is the one of a live lease on a GPU, and the newest token granted there. */
export interface Fence {
  readonly current: boolean;
  readonly newestToken: bigint;
}
