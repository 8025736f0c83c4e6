/**
 * What can go wrong, as one tree under ArbiterError.
 *
 * Law: one class for each ErrorReason of the contract, found by its name; a reason that this library does not know yet
 * is an ArbiterError that still carries it. Nothing here imports gRPC.
 */
import type { Blocker, ErrorReasonName, WaitReasonName } from "./values.js";

/** One field of a request that the arbiter refused, and why. */
export interface Violation {
  readonly field: string;
  readonly description: string;
}

/** The facts behind an error. */
export interface ErrorFacts {
  readonly reason?: ErrorReasonName | undefined;
  readonly code?: string | undefined;
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  readonly retryAfterMs?: number | undefined;
  readonly violations?: readonly Violation[] | undefined;
  readonly cause?: unknown;
}

const TRANSIENT_CODES: ReadonlySet<string> = new Set(["UNAVAILABLE", "DEADLINE_EXCEEDED"]);

/** Base of everything that this library throws about the arbiter. */
export class ArbiterError extends Error {
  /** The name of the contract's ErrorReason, such as "WAIT_TIMEOUT"; "" when there is none. */
  readonly reason: ErrorReasonName;
  /** The name of the gRPC status, such as "UNAVAILABLE"; "" when no call failed. */
  readonly code: string;
  /** The facts behind the reason: the holder in the way, the position, the limit. */
  readonly metadata: Readonly<Record<string, string>>;
  /** When to try again, where the arbiter says so. */
  readonly retryAfterMs: number | undefined;
  /** The refused fields of an invalid request. */
  readonly violations: readonly Violation[];

  constructor(message: string, facts: ErrorFacts = {}) {
    const violations = facts.violations ?? [];
    const fields = violations.map((each) => `${each.field}: ${each.description}`).join("; ");
    super(fields === "" ? message : `${message} (${fields})`, facts.cause === undefined ? {} : { cause: facts.cause });
    this.name = new.target.name;
    this.reason = facts.reason ?? "";
    this.code = facts.code ?? "";
    this.metadata = { ...facts.metadata };
    this.retryAfterMs = facts.retryAfterMs;
    this.violations = violations;
  }

  /** The same call may well succeed a little later: the arbiter was out of reach, or cannot grant just now. */
  get transient(): boolean {
    return TRANSIENT_CODES.has(this.code);
  }
}

/** The arbiter did not answer: not running, not reachable, or too slow. */
export class ArbiterUnavailable extends ArbiterError {
  /** Whether it may have taken the call in although its answer never came. */
  readonly mayHaveArrived: boolean;

  constructor(message: string, facts: ErrorFacts & { readonly mayHaveArrived?: boolean | undefined } = {}) {
    super(message, facts);
    this.mayHaveArrived = facts.mayHaveArrived ?? false;
  }

  /** Always: a later call may find the arbiter there. */
  override get transient(): boolean {
    return true;
  }
}

/** The arbiter is shutting down and takes no new requests. */
export class ShuttingDown extends ArbiterUnavailable {}

/** A field of the request is not allowed; `violations` names each. */
export class InvalidRequest extends ArbiterError {}

/** No such GPU on this node. */
export class UnknownGpu extends ArbiterError {}

/** No such lease, and none that ended lately. */
export class UnknownLease extends ArbiterError {}

/** The request would not fit on an empty GPU: waiting does not help. */
export class Infeasible extends ArbiterError {}

/** The queue is at its limit. */
export class QueueFull extends ArbiterError {}

/** This client is at its own limit of waiting requests or leases. */
export class ClientLimit extends ArbiterError {}

/** maxWait passed without a grant. */
export class WaitTimeout extends ArbiterError {}

/** The fencing token is not the lease's. */
export class StaleToken extends ArbiterError {}

/** The requestId was used with other parameters. */
export class RequestIdConflict extends ArbiterError {}

/** The lease belongs to another identity, or the call needs the admin role. */
export class NotPermitted extends ArbiterError {}

/** No credentials, or wrong ones. */
export class Unauthenticated extends ArbiterError {}

/** The arbiter cannot write its journal, so that it grants nothing for now. */
export class JournalUnavailable extends ArbiterError {}

/** Every candidate GPU is lost. */
export class GpuUnavailable extends ArbiterError {}

/** What the resize asks for would not be admitted now; the lease is as it was. */
export class ResizeRefused extends ArbiterError {}

/** Another stream joined this request by its requestId, and took it over. */
export class Superseded extends ArbiterError {}

/** The request was taken back while it waited. */
export class Cancelled extends ArbiterError {}

/**
 * The lease is no longer held, and this process must not use the GPU any longer.
 *
 * `reason` is the contract's EndReason ("REVOKED", "TTL_EXPIRED"), "SUPERSEDED", or an ErrorReason; "RELEASED" when the
 * process itself gave the lease back.
 */
export class LeaseLost extends ArbiterError {}

/** The lease was over before this call: it can be neither renewed nor resized. */
export class LeaseEnded extends LeaseLost {}

/** The facts of a decline. */
export interface DeclineFacts {
  readonly reason: WaitReasonName;
  readonly detail: string;
  readonly waitedMs: number;
  readonly retryAfterMs: number | undefined;
  readonly blockers: readonly Blocker[];
}

/** No GPU could be had, and the busy policy is not to wait. An outcome of `acquire`; thrown by `lease`. */
export abstract class Declined extends ArbiterError {
  declare readonly reason: WaitReasonName;
  /** For people: what is in the way. */
  readonly detail: string;
  /** How long the request waited. */
  readonly waitedMs: number;
  /** The leases in the way. */
  readonly blockers: readonly Blocker[];

  constructor(facts: DeclineFacts) {
    super(facts.detail || `no GPU could be had: ${facts.reason}`, facts);
    this.detail = facts.detail;
    this.waitedMs = facts.waitedMs;
    this.blockers = facts.blockers;
  }
}

/** The work is to be left out. */
export class Skipped extends Declined {}

/** The work is to be done on the CPU. */
export class FallbackToCpu extends Declined {}

type ErrorClass = new (message: string, facts: ErrorFacts) => ArbiterError;

/** The class for each reason of the contract. */
export const BY_REASON: Readonly<Record<string, ErrorClass>> = {
  INVALID_REQUEST: InvalidRequest,
  UNKNOWN_GPU: UnknownGpu,
  UNKNOWN_LEASE: UnknownLease,
  INFEASIBLE: Infeasible,
  QUEUE_FULL: QueueFull,
  CLIENT_LIMIT: ClientLimit,
  WAIT_TIMEOUT: WaitTimeout,
  SHUTDOWN: ShuttingDown,
  STALE_TOKEN: StaleToken,
  REQUEST_ID_CONFLICT: RequestIdConflict,
  NOT_PERMITTED: NotPermitted,
  UNAUTHENTICATED: Unauthenticated,
  JOURNAL_UNAVAILABLE: JournalUnavailable,
  GPU_UNAVAILABLE: GpuUnavailable,
  LEASE_ENDED: LeaseEnded,
  RESIZE_REFUSED: ResizeRefused,
  SUPERSEDED: Superseded,
  CANCELLED: Cancelled,
};
