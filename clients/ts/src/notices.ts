/**
 * What the holder is told: callbacks, and two signals.
 *
 * Law: a callback runs beside the reader, never in its way; one that throws is logged and changes nothing. They run one
 * after the other, but one that takes long does not keep the next from being called.
 */
import { LeaseLost } from "./errors.js";
import type { Lease } from "./lease.js";
import type { Logger } from "./logger.js";
import { timing } from "./timing.js";
import type { YieldRequest } from "./values.js";
import { settled } from "./waiting.js";

/** The callbacks of a holder; they may be asynchronous. */
export interface Callbacks {
  /** Called when the arbiter asks for the GPU. */
  readonly onYield?: ((request: YieldRequest, lease: Lease) => unknown) | undefined;
  /** Called when the lease is lost. */
  readonly onLost?: ((lease: Lease) => unknown) | undefined;
}

export class Notices {
  readonly #callbacks: Callbacks;
  readonly #logger: Logger;
  readonly #lost = new AbortController();
  readonly #yield = new AbortController();
  #latest: Promise<unknown> | undefined;

  constructor(callbacks: Callbacks, logger: Logger) {
    this.#callbacks = callbacks;
    this.#logger = logger;
  }

  /** Aborted when the lease is lost. */
  get lostSignal(): AbortSignal {
    return this.#lost.signal;
  }

  /** Aborted when the arbiter asks for the GPU. */
  get yieldSignal(): AbortSignal {
    return this.#yield.signal;
  }

  /** The work is to stop for a reason of the caller's. */
  stop(reason: unknown): void {
    this.#lost.abort(reason);
  }

  /** The arbiter asks for the GPU. */
  yieldAsked(lease: Lease, request: YieldRequest): void {
    const { onYield } = this.#callbacks;
    if (onYield !== undefined) {
      this.#call("onYield", () => onYield(request, lease));
    }
    this.#yield.abort(request);
  }

  /** The lease is lost. */
  lost(lease: Lease): void {
    this.#logger.warn(`lease ${lease.leaseId} is lost: ${lease.lostReason} ${lease.lostDetail}`.trimEnd());
    const { onLost } = this.#callbacks;
    if (onLost !== undefined) {
      this.#call("onLost", () => onLost(lease));
    }
    this.#lost.abort(lostError(lease));
  }

  #call(name: string, callback: () => unknown): void {
    const before = this.#latest;
    this.#latest = (async () => {
      if (before !== undefined) {
        await settled(before, timing.callbackOrderMs);
      }
      try {
        await callback();
      } catch (error) {
        this.#logger.error(`${name} threw: ${String(error)}`);
      }
    })();
  }
}

/** The error for a lease that is lost. */
export function lostError(lease: Lease): LeaseLost {
  const detail = lease.lostDetail === "" ? "" : ` (${lease.lostDetail})`;
  return new LeaseLost(`lease ${lease.leaseId} is lost: ${lease.lostReason}${detail}`, { reason: lease.lostReason });
}
