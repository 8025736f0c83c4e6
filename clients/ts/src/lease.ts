/**
 * A lease as its holder sees it.
 *
 * Law: this is all that a program needs to know of a lease, whether the arbiter granted it or, where the program chose
 * so, it stands for work without an arbiter.
 */
import type { Lease as LeaseMessage } from "./gen/gpuarbiter/v1/lease_pb.js";
import type { Duration, Size } from "./units.js";
import type { GrantedGpu, Released, SharingName, WorkReport, YieldRequest } from "./values.js";

/** How a call may be given up. */
export interface Abortable {
  /** Ends the waiting; what the call asked for may happen all the same. */
  readonly signal?: AbortSignal | undefined;
}

/** The right to use one or more GPUs, until it is released, ends by a rule, or is lost. */
export interface Lease extends AsyncDisposable {
  /** true: no arbiter granted this; it was out of reach, and the program chose to proceed without a lease. */
  readonly unmanaged: boolean;
  /** Unique for ever; "" without an arbiter. */
  readonly leaseId: string;
  /** Strictly increasing over all grants: hand it to whatever the lease protects. 0n without an arbiter. */
  readonly fencingToken: bigint;
  /** The idempotency key of the request. */
  readonly requestId: string;
  readonly taskType: string;
  /** The GPUs; none are known without an arbiter. */
  readonly gpus: readonly GrantedGpu[];
  /** Ready to use as CUDA_VISIBLE_DEVICES. Without an arbiter, what this process has there already. */
  readonly visibleDevices: string | undefined;
  /** The node whose GPUs these are. */
  readonly node: string;
  readonly queueWaitMs: number;
  readonly sharing: SharingName;
  readonly priority: number;
  /** It lives by its ttl alone, without a stream. */
  readonly detached: boolean;
  /** The lease as the arbiter last described it: the message of the contract. */
  readonly message: LeaseMessage | undefined;

  /** Until the watchdog acts, by the own clock and on the careful side; undefined: without limit. */
  readonly holdRemainingMs: number | undefined;
  /** Until it ends unless renewed, by the own clock and on the careful side; undefined: no ttl. */
  readonly ttlRemainingMs: number | undefined;
  /** Aborted when the lease is lost, with a LeaseLost as its reason: stop using the GPU. */
  readonly signal: AbortSignal;
  /** Aborted when the arbiter asks for the GPU, with the YieldRequest as its reason. */
  readonly yieldSignal: AbortSignal;
  /** The arbiter asks for the GPU; stands until the lease ends. */
  readonly yieldRequest: YieldRequest | undefined;
  /** The line to the arbiter is broken: the lease may or may not live on. This library tries to rejoin. */
  readonly uncertain: boolean;
  /** It is no longer held, and not because it was released here: stop using the GPU. */
  readonly lost: boolean;
  /** Why it was lost, such as "REVOKED", "TTL_EXPIRED" or "SUPERSEDED"; "" while it is not. */
  readonly lostReason: string;
  /** The same for people. */
  readonly lostDetail: string;
  /** How it ended, once that is known: after the work, when the arbiter has answered; `release()` waits for that. */
  readonly released: Released | undefined;

  /** Does nothing while the lease is held; throws LeaseLost when it is not. Cheap enough for an inner loop. */
  readonly check: () => void;
  /**
   * Shows that the holder is alive; with `extendHold`, asks that the hold last so long from now. Renewals for a ttl
   * happen in the background anyway.
   */
  readonly renew: (options?: { readonly extendHold?: Duration | undefined } & Abortable) => Promise<void>;
  /** Changes what is committed; what is left out stays. ResizeRefused: it would not be admitted now. */
  readonly resize: (
    options: { readonly memory?: Size | undefined; readonly shared?: boolean | undefined } & Abortable,
  ) => Promise<void>;
  /** Sets what is told about the work when the lease is released. */
  readonly report: (report: WorkReport) => void;
  /** Gives the lease back, within five seconds; a second time answers the same. */
  readonly release: (report?: WorkReport, options?: Abortable) => Promise<Released>;
}
