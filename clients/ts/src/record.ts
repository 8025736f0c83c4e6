/**
 * What a holder knows of its lease: its state, as pure transitions.
 *
 * Law: no I/O and no clock; the time of each event comes in, in milliseconds of `now()`. Every transition returns
 * whether it changed anything, so that each change is announced once. After `close`, nothing is lost any more: the
 * holder itself gave it back.
 */
import { releasedOf, yieldOf } from "./answers.js";
import type { Ended, RenewResponse, YieldRequested } from "./gen/gpuarbiter/v1/gpu_arbiter_pb.js";
import type { Lease } from "./gen/gpuarbiter/v1/lease_pb.js";
import { timing } from "./timing.js";
import { optionalMs } from "./units.js";
import type { Released, YieldRequest } from "./values.js";

/**
 * The latest moment that cannot lie after what a grant says of its lease: from here a careful holder counts.
 *
 * It was said after this sending, and after the wait that cannot have begun before the first one. A grant that arrived
 * earlier than that allows is a lease that was joined: the wait lies in the past.
 */
export function grantMoment(firstSent: number, sent: number, waitedMs: number, received: number): number {
  const moment = firstSent + waitedMs;
  return moment <= received ? Math.max(sent, moment) : sent;
}

export class LeaseRecord {
  lease: Lease;
  yieldRequest: YieldRequest | undefined;
  lostReason = "";
  lostDetail = "";
  /** Lost by the own clock only: the arbiter may hold it still. */
  presumed = false;
  released: Released | undefined;
  closed = false;
  holdDeadline: number | undefined;
  ttlDeadline: number | undefined;
  #brokenAt: number | undefined;

  constructor(lease: Lease, countedFrom: number) {
    this.lease = lease;
    this.#count(lease, countedFrom);
  }

  #count(message: Lease | RenewResponse, countedFrom: number): void {
    const hold = optionalMs(message.holdRemaining);
    const ttl = optionalMs(message.ttlRemaining);
    this.holdDeadline = hold === undefined ? undefined : countedFrom + hold;
    this.ttlDeadline = ttl === undefined ? undefined : countedFrom + ttl;
  }

  /** It ended, and not by this holder's own release. */
  get lost(): boolean {
    return this.lostReason !== "";
  }

  /** Nothing is left to follow: it is lost, or being given back. */
  get over(): boolean {
    return this.closed || this.lost;
  }

  /** The line to the arbiter is broken, and the lease may or may not live on. */
  get uncertain(): boolean {
    return this.#brokenAt !== undefined && !this.over;
  }

  /** While uncertain: when the lease must be taken for lost. */
  get giveUpAt(): number | undefined {
    if (this.#brokenAt === undefined) {
      return undefined;
    }
    return this.ttlDeadline ?? this.#brokenAt + timing.disconnectGraceMs;
  }

  /** A renewal was answered; true when it brought a yield request that was not known. */
  renewed(reply: RenewResponse, sent: number): boolean {
    this.#count(reply, sent);
    return reply.pendingYield !== undefined && this.yieldAsked(reply.pendingYield);
  }

  /** The arbiter described the lease anew. */
  changed(lease: Lease, countedFrom: number): void {
    this.lease = lease;
    this.#count(lease, countedFrom);
  }

  /** The line stands again. */
  mended(): void {
    this.#brokenAt = undefined;
  }

  /**
   * The arbiter asks for the GPU; true when this says something new. A renewal repeats what the stream said, with less
   * time left: that is no news.
   */
  yieldAsked(message: YieldRequested): boolean {
    const asked = yieldOf(message);
    const known = this.yieldRequest;
    if (this.over) {
      return false;
    }
    if (known?.reason === asked.reason && (known.graceMs !== undefined || asked.graceMs === undefined)) {
      return false;
    }
    this.yieldRequest = asked;
    return true;
  }

  /** The line broke; true when it stood until now. */
  broke(now: number): boolean {
    if (this.#brokenAt !== undefined || this.over) {
      return false;
    }
    this.#brokenAt = now;
    return true;
  }

  /** The arbiter says that it ended; true when that is news to the holder. */
  ended(message: Ended): boolean {
    const released = releasedOf(message);
    // While it is being given back, the release has an answer of its own.
    if (this.released === undefined && !this.closed) {
      this.released = released;
    }
    return this.lose(released.reason || "ENDED", message.detail);
  }

  /** It is lost, or must be presumed so because the line is broken; true the first time. */
  lose(reason: string, detail: string, presumed = false): boolean {
    if (this.over) {
      return false;
    }
    this.lostReason = reason;
    this.lostDetail = detail;
    this.presumed = presumed;
    return true;
  }

  /** The holder gives it back: from here on nothing is lost. */
  close(): void {
    this.closed = true;
  }

  /** The release was answered; the first answer stands. */
  gaveBack(released: Released): Released {
    this.closed = true;
    this.released ??= released;
    return this.released;
  }
}
