/**
 * From the request to its answer: waiting in the queue.
 *
 * Law: a request that its caller gives up on is taken back, so that no GPU is granted to nobody. One that the arbiter
 * may have taken in, and whose line broke, is asked again by the same request_id, through a restart of the arbiter too:
 * it may be a lease by now. One that found nobody to take it in fails at once.
 */
import { type Decline, declineOf, nameOf, queuedOf, queueWaitOf } from "./answers.js";
import { now } from "./clock.js";
import { ArbiterError, ArbiterUnavailable, JournalUnavailable, LeaseEnded } from "./errors.js";
import type { AcquireRequest, Ended } from "./gen/gpuarbiter/v1/gpu_arbiter_pb.js";
import { EndReason, type Lease } from "./gen/gpuarbiter/v1/lease_pb.js";
import type { AcquireCall } from "./line.js";
import type { Logger } from "./logger.js";
import { grantMoment } from "./record.js";
import type { Session } from "./session.js";
import { timing } from "./timing.js";
import { durationMs } from "./units.js";
import type { Queued } from "./values.js";
import { abortable, settled, sleep } from "./waiting.js";

/** A lease that was granted, the moment from which to count it, and the call that carries it. */
export interface Grant {
  readonly lease: Lease;
  readonly countedFrom: number;
  readonly call: AcquireCall;
}

/** What an asking needs to know. */
export interface AskingOptions {
  readonly onQueued: ((queued: Queued) => unknown) | undefined;
  readonly signal: AbortSignal;
  readonly logger: Logger;
}

export class Asking {
  readonly #session: Session;
  readonly #request: AcquireRequest;
  readonly #options: AskingOptions;
  /** By the call of now, and by any so far. */
  #queued = false;
  #everQueued = false;
  #firstSent: number | undefined;
  #call: AcquireCall | undefined;

  constructor(session: Session, request: AcquireRequest, options: AskingOptions) {
    this.#session = session;
    this.#request = request;
    this.#options = options;
  }

  /** The grant or the decline; throws an ArbiterError when neither will come, or the signal's reason. */
  async answer(): Promise<Grant | Decline> {
    try {
      return await this.#wait();
    } catch (thrown) {
      if (!(thrown instanceof ArbiterError)) {
        await this.#withdraw();
      }
      throw thrown;
    }
  }

  async #wait(): Promise<Grant | Decline> {
    const { signal, logger } = this.#options;
    let pause = timing.firstPauseMs;
    let askUntil = 0;
    let takenIn = false;
    for (;;) {
      this.#queued = false;
      try {
        return await this.#ask();
      } catch (failure) {
        if (!(failure instanceof ArbiterUnavailable || failure instanceof JournalUnavailable)) {
          throw failure;
        }
        const moment = now();
        if (this.#queued || !takenIn) {
          // Until now there was no outage, or it was over.
          pause = timing.firstPauseMs;
          askUntil = this.#askUntil(moment);
        }
        takenIn ||= this.#queued || (failure instanceof ArbiterUnavailable && failure.mayHaveArrived);
        if (!takenIn || moment >= askUntil || this.#session.closed) {
          throw failure;
        }
        logger.info(`request ${this.#request.requestId}: ${failure.message}; asking again`);
      }
      await sleep(pause, signal);
      pause = Math.min(2 * pause, timing.longestPauseMs);
    }
  }

  /** How long an outage that begins now may last for this request. */
  #askUntil(moment: number): number {
    const { maxWait } = this.#request;
    if (maxWait === undefined) {
      return moment + timing.outageMs;
    }
    let until = (this.#firstSent ?? moment) + durationMs(maxWait);
    if (!this.#everQueued) {
      // Nobody has said that it waits.
      until = Math.min(until, moment + timing.outageMs);
    }
    return Math.max(until, moment + timing.leastOutageMs);
  }

  async #ask(): Promise<Grant | Decline> {
    const { signal } = this.#options;
    const line = await this.#session.line(signal);
    await this.#session.allGivenBack(signal);
    const sent = now();
    this.#firstSent ??= sent;
    const call = line.acquire(this.#request);
    this.#call = call;
    for (;;) {
      const event = await abortable(call.read(), signal);
      switch (event?.case) {
        case "granted": {
          const { lease } = event.value;
          if (lease !== undefined) {
            return { lease, countedFrom: this.#countedFrom(lease, this.#firstSent, sent), call };
          }
          break;
        }
        case "declined":
          return declineOf(event.value);
        case "ended":
          throw joinedTooLate(event.value);
        case "queued":
          this.#tell(queuedOf(event.value));
          break;
        default:
          if (event === undefined) {
            throw new ArbiterUnavailable("the arbiter ended the request without an answer", { mayHaveArrived: true });
          }
      }
    }
  }

  #countedFrom(lease: Lease, firstSent: number, sent: number): number {
    // Granted at once, or joined: then its queue_wait is that of long ago.
    const waited = this.#queued ? queueWaitOf(lease) : 0;
    return grantMoment(firstSent, sent, waited, now());
  }

  #tell(queued: Queued): void {
    this.#queued = true;
    this.#everQueued = true;
    const { onQueued, logger } = this.#options;
    if (onQueued === undefined) {
      return;
    }
    const failed = (error: unknown) => logger.error(`onQueued threw: ${String(error)}`);
    try {
      Promise.resolve(onQueued(queued)).catch(failed);
    } catch (error) {
      failed(error);
    }
  }

  /** The caller need not wait for long; it goes on behind its back. */
  async #withdraw(): Promise<void> {
    if (this.#firstSent !== undefined) {
      await settled(this.#takeBack(), timing.withdrawMs);
    }
  }

  async #takeBack(): Promise<void> {
    if (this.#call !== undefined && !this.#call.over && (await this.#call.cancel())) {
      return;
    }
    // Its line broke, and with a ttl what is granted now would outlive that.
    const { requestId } = this.#request;
    const release = { case: "release", value: { target: { case: "requestId", value: requestId } } } as const;
    const until = now() + timing.outageMs;
    while (now() < until && !this.#session.closed) {
      try {
        await this.#session.ask(release);
        return;
      } catch (failure) {
        if (!(failure instanceof ArbiterError && failure.transient)) {
          return;
        }
      }
      await sleep(timing.firstPauseMs);
    }
  }
}

function joinedTooLate(ended: Ended): LeaseEnded {
  const reason = nameOf(EndReason, ended.reason);
  return new LeaseEnded(`the lease of this requestId has ended: ${ended.detail || reason}`, {
    reason: "LEASE_ENDED",
    metadata: { end_reason: reason },
  });
}
