/**
 * The Session of a client: one line at a time, shared by all its leases, opened when it is needed.
 *
 * Law: who needs a line while one is being opened waits for that one. After each break the process is attested anew,
 * because a restarted arbiter knows no old proof. What was left while a line broke is given back before a lease is asked
 * for over the next one.
 */
import { readAttestation } from "./attestation.js";
import { now } from "./clock.js";
import type { SessionResponse } from "./gen/gpuarbiter/v1/gpu_arbiter_pb.js";
import { holderOf } from "./holder.js";
import { Line, type Question, unanswered } from "./line.js";
import { placeOf, type Target } from "./settings.js";
import { timing } from "./timing.js";
import { abortable, settled } from "./waiting.js";

type Answer = SessionResponse["answer"];
/** The answer to a question: the message of the same name. */
export type AnswerTo<K extends Question["case"]> = Extract<Answer, { case: K }> extends { value: infer V } ? V : never;

/** How a call may be given up. */
export interface CallOptions {
  readonly ms?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called once it is written. */
  readonly sent?: (() => void) | undefined;
}

export class Session {
  readonly target: Target;
  readonly clientId: string | undefined;
  #line: Promise<Line> | undefined;
  readonly #owed = new Set<Promise<unknown>>();
  readonly #closing = new AbortController();

  constructor(target: Target, clientId: string | undefined) {
    this.target = target;
    this.clientId = clientId;
  }

  get closed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** The line; opened if there is none. */
  async line(signal?: AbortSignal): Promise<Line> {
    for (;;) {
      this.#closing.signal.throwIfAborted();
      signal?.throwIfAborted();
      if (this.#line === undefined) {
        const opening = this.#open();
        this.#line = opening;
        opening.catch(() => {
          if (this.#line === opening) {
            this.#line = undefined;
          }
        });
      }
      const asked = this.#line;
      const line = await abortable(asked, signal);
      if (line.usable) {
        return line;
      }
      if (this.#line === asked) {
        this.#line = undefined;
      }
    }
  }

  async #open(): Promise<Line> {
    const { signal } = this.#closing;
    const attestation = await readAttestation(placeOf(this.target.address));
    return await Line.open(this.target, holderOf(this.clientId, attestation), signal);
  }

  /** A call with one answer, within so long. */
  async ask<K extends Question["case"] & Answer["case"] & string>(
    question: Extract<Question, { case: K }>,
    options: CallOptions = {},
  ): Promise<AnswerTo<K>> {
    const { signal, sent, ms = timing.callMs } = options;
    const until = now() + ms;
    const line = this.line(signal);
    if (!(await settled(line, ms))) {
      throw unanswered(this.target, ms);
    }
    const answer = await abortable((await line).ask(question, Math.max(0, until - now()), sent), signal);
    return answer.value as AnswerTo<K>;
  }

  /** A release is asked for again: that it is over, in whatever way. */
  owe(released: Promise<unknown>): void {
    this.#owed.add(released);
    void released.finally(() => this.#owed.delete(released));
  }

  /** Waits for releases that are asked for again; that is bounded for each. */
  async allGivenBack(signal?: AbortSignal): Promise<void> {
    await abortable(Promise.all(this.#owed), signal);
  }

  /** Ends it, within so long; what is still open fails. */
  async close(ms: number): Promise<void> {
    const line = this.#line;
    this.#closing.abort(new Error("this client is closed"));
    this.#line = undefined;
    if (line !== undefined) {
      const ending = line.then((each) => each.end(ms));
      await settled(ending, ms);
    }
  }
}
