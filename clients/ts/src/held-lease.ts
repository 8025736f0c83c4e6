/**
 * A lease that the arbiter granted.
 *
 * Law: `leave` gives it back within a bounded time, whatever happens, and never throws. It waits until the release is
 * written, and not for the answer: the line keeps order, so that whatever is asked for over it from then on comes after.
 */
import { create } from "@bufbuild/protobuf";
import { gpusOf, nameOf, queueWaitOf, releasedOf } from "./answers.js";
import type { Grant } from "./asking.js";
import { now } from "./clock.js";
import { ArbiterError, LeaseLost } from "./errors.js";
import {
  type AcquireRequest,
  ReleaseRequestSchema,
  type ReleaseResponse,
  ResizeRequestSchema,
} from "./gen/gpuarbiter/v1/gpu_arbiter_pb.js";
import { type Lease as LeaseMessage, Sharing } from "./gen/gpuarbiter/v1/lease_pb.js";
import { Keeper } from "./keeper.js";
import type { Abortable, Lease } from "./lease.js";
import type { Logger } from "./logger.js";
import { type Callbacks, lostError, Notices } from "./notices.js";
import { set, sharingOf, workReport } from "./options.js";
import { LeaseRecord } from "./record.js";
import type { Session } from "./session.js";
import { timing } from "./timing.js";
import { type Duration, parseBytes, type Size } from "./units.js";
import type { GrantedGpu, Released, SharingName, WorkReport, YieldRequest } from "./values.js";
import { abortable, sleep } from "./waiting.js";

export class HeldLease implements Lease {
  readonly unmanaged = false;
  readonly #session: Session;
  readonly #record: LeaseRecord;
  readonly #notices: Notices;
  readonly #keeper: Keeper;
  readonly #logger: Logger;
  readonly #onOver: (lease: HeldLease) => void;
  readonly #grantedAt = now();
  #report: WorkReport | undefined;
  #releasing: Promise<Released> | undefined;
  #leaving: Promise<void> | undefined;

  constructor(
    session: Session,
    request: AcquireRequest,
    grant: Grant,
    callbacks: Callbacks,
    logger: Logger,
    onOver: (lease: HeldLease) => void,
  ) {
    this.#session = session;
    this.#onOver = onOver;
    this.#logger = logger;
    this.#record = new LeaseRecord(grant.lease, grant.countedFrom);
    this.#notices = new Notices(callbacks, logger);
    const listener = {
      lost: () => this.#notices.lost(this),
      yieldAsked: () => this.yieldRequest && this.#notices.yieldAsked(this, this.yieldRequest),
    };
    this.#keeper = new Keeper(session, request, grant, this.#record, listener, logger);
    this.#keeper.start();
  }

  get message(): LeaseMessage {
    return this.#record.lease;
  }
  get leaseId(): string {
    return this.message.leaseId;
  }
  get fencingToken(): bigint {
    return this.message.fencingToken;
  }
  get requestId(): string {
    return this.message.requestId;
  }
  get taskType(): string {
    return this.message.taskType;
  }
  get gpus(): readonly GrantedGpu[] {
    return gpusOf(this.message);
  }
  get visibleDevices(): string {
    return this.message.visibleDevices;
  }
  get node(): string {
    return this.message.node;
  }
  get queueWaitMs(): number {
    return queueWaitOf(this.message);
  }
  get sharing(): SharingName {
    return nameOf(Sharing, this.message.sharing);
  }
  get priority(): number {
    return this.message.priority;
  }
  get detached(): boolean {
    return this.#keeper.detached;
  }
  get holdRemainingMs(): number | undefined {
    return left(this.#record.holdDeadline);
  }
  get ttlRemainingMs(): number | undefined {
    return left(this.#record.ttlDeadline);
  }
  get signal(): AbortSignal {
    return this.#notices.lostSignal;
  }
  get yieldSignal(): AbortSignal {
    return this.#notices.yieldSignal;
  }
  get yieldRequest(): YieldRequest | undefined {
    return this.#record.yieldRequest;
  }
  get uncertain(): boolean {
    return this.#record.uncertain;
  }
  get lost(): boolean {
    return this.#record.lost;
  }
  get lostReason(): string {
    return this.#record.lostReason;
  }
  get lostDetail(): string {
    return this.#record.lostDetail;
  }
  get released(): Released | undefined {
    return this.#record.released;
  }
  /** How long it has been held, by the own clock. */
  get heldMs(): number {
    return now() - this.#grantedAt;
  }
  /** What was set to be told about the work. */
  get reported(): WorkReport | undefined {
    return this.#report;
  }

  readonly check = (): void => {
    if (this.lost) {
      throw lostError(this);
    }
    if (this.#record.closed) {
      throw new LeaseLost(`lease ${this.leaseId} was released`, { reason: "RELEASED" });
    }
  };

  readonly renew = async (options: { readonly extendHold?: Duration | undefined } & Abortable = {}): Promise<void> => {
    await this.#keeper.renew(options.extendHold, { signal: options.signal });
  };

  readonly resize = async (
    options: { readonly memory?: Size | undefined; readonly shared?: boolean | undefined } & Abortable,
  ): Promise<void> => {
    const value = create(ResizeRequestSchema, {
      leaseId: this.leaseId,
      fencingToken: this.fencingToken,
      ...set("memoryBytes", options.memory === undefined ? undefined : parseBytes(options.memory)),
      sharing: sharingOf(options.shared),
    });
    const sent = now();
    const asked = this.#session.ask({ case: "resize", value }, { signal: options.signal });
    const { lease } = await this.#keeper.told(asked);
    if (lease !== undefined) {
      this.#record.changed(lease, sent);
    }
  };

  readonly report = (report: WorkReport): void => {
    workReport(report);
    this.#report = report;
  };

  readonly release = async (report?: WorkReport, options: Abortable = {}): Promise<Released> => {
    const told = report ?? this.#report;
    if (told !== undefined) {
      workReport(told);
    }
    return await abortable(this.#releaseOnce(told, timing.releaseMs), options.signal);
  };

  /** Stops the work for a reason of the caller's: its signal is aborted. */
  stop(reason: unknown): void {
    this.#notices.stop(reason);
  }

  /** Releases without throwing; returns once that is written, or, where the lease is in doubt or detached, over. */
  async leave(report: WorkReport | undefined): Promise<void> {
    const doubtful = this.lost || this.uncertain || this.detached;
    await new Promise<void>((resolve) => {
      void this.giveBack(report, timing.releaseMs, doubtful ? undefined : resolve).then(resolve);
    });
  }

  /** Releases without throwing, within so long. */
  async giveBack(report: WorkReport | undefined, ms: number, sent?: () => void): Promise<void> {
    if (this.#record.closed && this.#releasing === undefined) {
      // Released already, or in vain.
      return;
    }
    this.#leaving ??= this.#releaseOnce(report, ms, sent).then(
      () => {},
      (failure) =>
        this.#logger.warn(`lease ${this.leaseId} could not be released, and ends by itself: ${String(failure)}`),
    );
    await this.#leaving;
  }

  /** Of no more interest here: a detached lease is left alone, to be found by its requestId. */
  abandon(): void {
    this.#record.close();
    this.#keeper.stop(true);
    this.#onOver(this);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.leave(this.#report);
  }

  #releaseOnce(report: WorkReport | undefined, ms: number, sent?: () => void): Promise<Released> {
    this.#releasing ??= this.#release(report, ms, sent).finally(() => {
      this.#releasing = undefined;
    });
    return this.#releasing;
  }

  async #release(report: WorkReport | undefined, ms: number, sent?: () => void): Promise<Released> {
    this.#record.close();
    let over = false;
    try {
      const known = this.#record.released;
      if (known !== undefined) {
        over = true;
        return known;
      }
      if (this.lost && !this.#record.presumed) {
        // There is nothing to give back; another may have it.
        over = true;
        return this.#record.gaveBack({
          reason: this.lostReason,
          heldMs: this.heldMs,
          alreadyEnded: true,
          memoryVerdict: "",
          memoryPeakBytes: undefined,
        });
      }
      const released = this.#record.gaveBack(releasedOf(await this.#askRelease(report, ms, sent)));
      over = true;
      return released;
    } finally {
      this.#keeper.stop(over);
      this.#onOver(this);
    }
  }

  async #askRelease(report: WorkReport | undefined, ms: number, sent?: () => void): Promise<ReleaseResponse> {
    const value = create(ReleaseRequestSchema, {
      target: { case: "leaseId", value: this.leaseId },
      fencingToken: this.fencingToken,
      ...set("report", report === undefined ? undefined : workReport(report)),
    });
    const deadline = now() + (this.lost ? Math.min(ms, timing.lostReleaseMs) : ms);
    for (;;) {
      try {
        return await this.#session.ask({ case: "release", value }, { ms: Math.max(0, deadline - now()), sent });
      } catch (failure) {
        const again = failure instanceof ArbiterError && failure.transient && !this.#session.closed;
        if (!again || now() + timing.firstPauseMs >= deadline) {
          throw failure;
        }
      }
      if (this.#leaving !== undefined) {
        this.#session.owe(this.#leaving);
      }
      await sleep(timing.firstPauseMs);
    }
  }
}

function left(deadline: number | undefined): number | undefined {
  return deadline === undefined ? undefined : Math.max(0, deadline - now());
}
