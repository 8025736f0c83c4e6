/**
 * What happens behind a lease while it is held: its call followed, rejoined, and its ttl renewed.
 *
 * Law: a holder is told when it can no longer believe in its lease. When the line breaks, the lease is uncertain, and
 * once its own time has passed by the own clock (the ttl from the sending of the last renewal, otherwise the grace from
 * the moment that the break was noticed) it is presumed lost.
 */
import { clone, create, type MessageInitShape } from "@bufbuild/protobuf";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import type { Grant } from "./asking.js";
import { now } from "./clock.js";
import * as errors from "./errors.js";
import { type AcquireRequest, AcquireRequestSchema, RenewRequestSchema } from "./gen/gpuarbiter/v1/gpu_arbiter_pb.js";
import { BusyPolicy, type Lease } from "./gen/gpuarbiter/v1/lease_pb.js";
import type { AcquireCall, AcquireEvent } from "./line.js";
import type { Logger } from "./logger.js";
import { set } from "./options.js";
import type { LeaseRecord } from "./record.js";
import type { CallOptions, Session } from "./session.js";
import { RENEWALS_PER_TTL, timing } from "./timing.js";
import { type Duration, durationMessage, durationMs } from "./units.js";
import { Flag } from "./waiting.js";

/** What only a request that is new to the arbiter is told: it no longer knows the lease. */
const TOLD_TO_NEW_REQUESTS = [
  errors.WaitTimeout,
  errors.QueueFull,
  errors.ClientLimit,
  errors.Infeasible,
  errors.UnknownGpu,
  errors.GpuUnavailable,
];
const UNKNOWN = "the arbiter does not know the lease any more";

/** Who is told when something becomes known about the lease. */
export interface Listener {
  readonly lost: () => void;
  readonly yieldAsked: () => void;
}

export class Keeper {
  readonly detached: boolean;
  readonly #session: Session;
  readonly #record: LeaseRecord;
  readonly #listener: Listener;
  readonly #logger: Logger;
  readonly #rejoinRequest: AcquireRequest;
  readonly #stopped = new Flag();
  #call: AcquireCall;
  #joining = false;
  #sent = 0;

  constructor(
    session: Session,
    request: AcquireRequest,
    grant: Grant,
    record: LeaseRecord,
    listener: Listener,
    logger: Logger,
  ) {
    this.#session = session;
    this.#record = record;
    this.#listener = listener;
    this.#logger = logger;
    this.#call = grant.call;
    this.detached = request.detached;
    // No wait: what would have to wait is another lease than ours, which is then lost.
    this.#rejoinRequest = clone(AcquireRequestSchema, request);
    this.#rejoinRequest.busyPolicy = BusyPolicy.WAIT;
    this.#rejoinRequest.maxWait = create(DurationSchema);
  }

  get #leaseId(): string {
    return this.#record.lease.leaseId;
  }

  /** Begins, right after the grant. */
  start(): void {
    if (!this.detached) {
      void this.#follow();
    }
    const { ttl } = this.#record.lease;
    if (ttl !== undefined && durationMs(ttl) > 0) {
      void this.#renewAlways(durationMs(ttl) / RENEWALS_PER_TTL);
    }
  }

  /** Ends all of it; the record is closed or lost by then. With `over` the arbiter knows already. */
  stop(over: boolean): void {
    this.#stopped.raise();
    if (over) {
      this.#call.forget();
    } else {
      void this.#call.cancel();
    }
  }

  // -- the call that carries it --

  async #follow(): Promise<void> {
    try {
      let failure = await this.#read();
      let pause = timing.firstPauseMs;
      while (!this.#settled(failure)) {
        if (this.#break()) {
          pause = timing.firstPauseMs;
        }
        if (await this.#stopped.wait(pause)) {
          break;
        }
        pause = Math.min(2 * pause, timing.longestPauseMs);
        failure = await this.#rejoin();
      }
    } catch (error) {
      // A holder must not believe in a lease that nobody follows.
      this.#logger.error(`lease ${this.#leaseId}: following it failed: ${String(error)}`);
      this.lose("UNFOLLOWED", String(error), true);
    } finally {
      if (this.#record.lost) {
        void this.#call.cancel();
      }
    }
  }

  /** Reads until the call is over or nothing is left to read for; the failure that ended it. */
  async #read(): Promise<errors.ArbiterError | undefined> {
    try {
      while (!this.#record.over) {
        const event = await this.#call.read();
        if (event === undefined) {
          return undefined;
        }
        this.#take(event);
      }
    } catch (failure) {
      if (failure instanceof errors.ArbiterError) {
        return failure;
      }
      throw failure;
    }
    return undefined;
  }

  #take(event: AcquireEvent): void {
    if (event.case === "yieldRequested") {
      if (this.#record.yieldAsked(event.value)) {
        this.#listener.yieldAsked();
      }
    } else if (event.case === "ended") {
      if (this.#record.ended(event.value)) {
        this.#lost();
      }
    } else if (this.#joining && event.case === "granted") {
      this.#joined(event.value.lease);
    } else if (this.#joining && (event.case === "queued" || event.case === "declined")) {
      // The arbiter began anew with this request_id: it no longer knows the lease. What it began is cancelled.
      this.lose("NOT_RECOVERED", UNKNOWN);
    }
  }

  #joined(lease: Lease | undefined): void {
    if (lease?.leaseId !== this.#leaseId) {
      this.lose("NOT_RECOVERED", UNKNOWN);
      return;
    }
    this.#joining = false;
    this.#record.changed(lease, this.#sent);
    this.#record.mended();
    this.#logger.info(`lease ${lease.leaseId}: joined again`);
  }

  async #rejoin(): Promise<errors.ArbiterError | undefined> {
    this.#joining = true;
    try {
      const line = await this.#session.line();
      if (this.#stopped.up) {
        return undefined;
      }
      this.#sent = now();
      this.#call = line.acquire(this.#rejoinRequest);
    } catch (failure) {
      return failure instanceof errors.ArbiterError ? failure : undefined;
    }
    return await this.#read();
  }

  /** Whether the lease is over after its call ended so; otherwise the line broke. */
  #settled(failure: errors.ArbiterError | undefined): boolean {
    if (TOLD_TO_NEW_REQUESTS.some((kind) => failure instanceof kind)) {
      this.lose("NOT_RECOVERED", `${UNKNOWN} (${failure?.message})`);
    } else if (failure !== undefined && failure.reason !== "" && !failure.transient) {
      this.lose(endReason(failure), failure.message);
    }
    return this.#record.over;
  }

  // -- the time that is left without a line --

  #break(): boolean {
    const broke = this.#record.broke(now());
    if (broke) {
      this.#logger.warn(`lease ${this.#leaseId}: the line to the arbiter broke`);
      void this.#giveUpInTime();
    }
    return broke;
  }

  async #giveUpInTime(): Promise<void> {
    while (this.#record.uncertain) {
      const left = (this.#record.giveUpAt ?? 0) - now();
      if (left <= 0) {
        const reason = this.#record.ttlDeadline === undefined ? "DISCONNECTED" : "TTL_EXPIRED";
        this.lose(reason, "the arbiter was out of reach for longer than it keeps the lease", true);
        this.stop(false);
      }
      await this.#stopped.wait(left);
    }
  }

  lose(reason: string, detail: string, presumed = false): void {
    if (this.#record.lose(reason, detail, presumed)) {
      this.#lost();
    }
  }

  #lost(): void {
    this.#stopped.raise();
    this.#listener.lost();
  }

  // -- the ttl, and calls about the lease --

  /** Renews; what a renewal tells is taken in. Throws LeaseLost when the lease is over. */
  async renew(extendHold: Duration | undefined, options: CallOptions = {}): Promise<void> {
    const { leaseId, fencingToken } = this.#record.lease;
    const value = create(RenewRequestSchema, {
      leaseId,
      fencingToken,
      ...set("extendHold", durationMessage(extendHold)),
    } satisfies MessageInitShape<typeof RenewRequestSchema>);
    const sent = now();
    const reply = await this.told(this.#session.ask({ case: "renew", value }, options));
    if (this.#record.renewed(reply, sent)) {
      this.#listener.yieldAsked();
    }
  }

  /** The answer to a call about the lease; when it says that the lease is over, the holder learns that it is lost. */
  async told<T>(answer: Promise<T>): Promise<T> {
    try {
      return await answer;
    } catch (failure) {
      if (failure instanceof errors.LeaseLost) {
        this.lose(endReason(failure), failure.message);
      } else if (failure instanceof errors.UnknownLease || failure instanceof errors.StaleToken) {
        this.lose(endReason(failure), failure.message);
        const { message, reason, code } = failure;
        throw new errors.LeaseLost(message, { reason, code, cause: failure });
      }
      throw failure;
    }
  }

  async #renewAlways(interval: number): Promise<void> {
    let pause = interval;
    while (!(await this.#stopped.wait(pause)) && !this.#record.over) {
      try {
        await this.renew(undefined, { ms: this.#answerWithin(Math.max(interval, 1_000)) });
        pause = interval;
        if (this.detached) {
          this.#record.mended();
        }
      } catch (failure) {
        if (this.#stopped.up) {
          return;
        }
        pause = Math.min(interval, timing.longestPauseMs);
        this.#logger.warn(`lease ${this.#leaseId}: not renewed: ${String(failure)}`);
        if (this.detached && failure instanceof errors.ArbiterError && failure.transient) {
          this.#break();
        }
      }
    }
  }

  /** A detached lease has nothing but its renewals: one that hangs must not hide that the ttl is over. */
  #answerWithin(ms: number): number {
    const until = this.#record.ttlDeadline;
    return until === undefined || !this.detached ? ms : Math.max(0, Math.min(ms, until - now()));
  }
}

/** Why the lease ended, where the arbiter says so; otherwise why the call failed. */
export function endReason(failure: errors.ArbiterError): string {
  return failure.metadata["end_reason"] || failure.reason;
}
