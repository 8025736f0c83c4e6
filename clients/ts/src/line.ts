/**
 * A Session stream: many calls over one connection, answered by call_id.
 *
 * Law: every call gets exactly one last answer: the arbiter's, or the failure that ended the line. What was written to
 * a line that broke may have arrived; what was asked before the line stood was not sent. It keeps the program from
 * ending only while a call is open.
 */
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { ArbiterUnavailable } from "./errors.js";
import {
  type AcquireRequest,
  type AcquireResponse,
  type SessionRequest,
  SessionRequestSchema,
  type SessionResponse,
} from "./gen/gpuarbiter/v1/gpu_arbiter_pb.js";
import type { Holder } from "./gen/gpuarbiter/v1/lease_pb.js";
import { Mailbox } from "./mailbox.js";
import type { Target } from "./settings.js";
import { fromConnect, fromFailure } from "./status.js";
import { timing } from "./timing.js";
import { VERSION } from "./version.js";
import { settled } from "./waiting.js";
import { openWire, type Wire } from "./wire.js";

/** A call with one answer, such as { case: "release", value: … }. */
export type Question = NonNullable<MessageInitShape<typeof SessionRequestSchema>["call"]>;
type Answer = SessionResponse["answer"];
export type AcquireEvent = AcquireResponse["event"];

interface Open {
  readonly take: (answer: Answer) => boolean;
  readonly fail: (failure: unknown) => void;
}

/** An acquire under way. */
export interface AcquireCall {
  /** The next event; undefined after the last one. Throws an ArbiterError when the call or the line failed. */
  readonly read: () => Promise<AcquireEvent | undefined>;
  /** Nothing is left to happen to it. */
  readonly over: boolean;
  /** Leaves the queue or ends the lease, unless it is over; whether the arbiter has said so. */
  readonly cancel: () => Promise<boolean>;
  /** It is of no more interest; nothing is sent. */
  readonly forget: () => void;
}

interface Outgoing {
  readonly request: SessionRequest;
  readonly sent: (() => void) | undefined;
}

export class Line {
  readonly #wire: Wire;
  readonly #target: Target;
  readonly #outbox = new Mailbox<Outgoing>();
  readonly #open = new Map<bigint, Open>();
  readonly #ended: Promise<void>;
  #callId = 0n;
  #failure: unknown;

  private constructor(wire: Wire, target: Target) {
    this.#wire = wire;
    this.#target = target;
    this.#ended = this.#read();
  }

  /** Opens a line; it stands once the arbiter has said so. */
  static async open(target: Target, holder: Holder, signal?: AbortSignal): Promise<Line> {
    const wire = await openWire(target, signal);
    const line = new Line(wire, target);
    try {
      const userAgent = `gpu-arbiter-client-node/${VERSION}`;
      await line.ask({ case: "open", value: { holder, userAgent } }, timing.callMs);
      return line;
    } catch (failure) {
      line.abandon();
      // No call was sent yet.
      throw failure instanceof ArbiterUnavailable && failure.mayHaveArrived
        ? new ArbiterUnavailable(failure.message, { code: failure.code, cause: failure })
        : failure;
    }
  }

  /** Whether calls can be made over it. */
  get usable(): boolean {
    return !this.#outbox.ended;
  }

  /** Asks a question, and waits for so long for its answer; `sent` is called once it is written. */
  async ask(question: Question, ms: number, sent?: () => void): Promise<Answer> {
    const answer = this.#ask(question, sent);
    const callId = this.#callId;
    if (!(await settled(answer, ms))) {
      this.#open.delete(callId);
      this.#rest();
      throw unanswered(this.#target, ms);
    }
    return await answer;
  }

  /** Asks for a lease. */
  acquire(request: AcquireRequest): AcquireCall {
    const events = new Mailbox<AcquireEvent>();
    const callId = this.#send(
      { case: "acquire", value: request },
      {
        take: (answer) => {
          const event = answer.case === "acquire" ? answer.value.event : { case: undefined };
          events.put(event);
          const last = isLast(event, request);
          if (last) {
            events.close();
          }
          return last;
        },
        fail: (failure) => events.fail(failure),
      },
    );
    const over = () => events.ended;
    return {
      read: () => events.read(),
      get over() {
        return over();
      },
      cancel: async () => {
        if (!this.#open.delete(callId)) {
          return false;
        }
        events.close();
        const answer = this.#ask({ case: "cancel", value: { acquireCallId: callId } }).then(
          () => true,
          (failure: unknown) => !(failure instanceof ArbiterUnavailable),
        );
        return (await settled(answer, timing.withdrawMs)) && (await answer);
      },
      forget: () => {
        events.close();
        this.#open.delete(callId);
        this.#rest();
      },
    };
  }

  /** Ends the line in order, within so long: waiting requests are taken back, what was asked is answered. */
  async end(ms: number): Promise<void> {
    this.#outbox.close();
    await settled(this.#ended, ms);
    this.abandon();
  }

  /** Ends the line at once. */
  abandon(): void {
    this.#fail(fromConnect(new Error("the line was closed"), this.#target.address));
    this.#wire.close();
  }

  #ask(question: Question, sent?: () => void): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const take = (answer: Answer) => {
        resolve(answer);
        return true;
      };
      this.#send(question, { take, fail: reject }, sent);
    });
  }

  #send(call: Question, open: Open, sent?: () => void): bigint {
    this.#callId += 1n;
    const callId = this.#callId;
    const request = create(SessionRequestSchema, { callId, call });
    const wrong = encodingFault(request);
    if (wrong !== undefined) {
      open.fail(wrong);
    } else if (this.#outbox.put({ request, sent })) {
      this.#open.set(callId, open);
      this.#wire.hold(true);
    } else {
      open.fail(this.#failure ?? new ArbiterUnavailable("the line to the arbiter is closed", { code: "UNAVAILABLE" }));
    }
    return callId;
  }

  /** What Connect writes; it asks for the next message once it has written one. */
  async *#outgoing(): AsyncGenerator<SessionRequest> {
    for await (const { request, sent } of this.#outbox) {
      yield request;
      sent?.();
    }
  }

  async #read(): Promise<void> {
    try {
      const answers = this.#wire.client.session(this.#outgoing(), { signal: this.#wire.broken });
      for await (const { callId, answer } of answers) {
        const open = this.#open.get(callId);
        if (open === undefined) {
          continue;
        }
        const last = answer.case === "failure";
        if (answer.case === "failure") {
          open.fail(fromFailure(answer.value, this.#target.address));
        }
        if (last || open.take(answer)) {
          this.#open.delete(callId);
          this.#rest();
        }
      }
      this.#fail(fromConnect(new Error("the arbiter ended the session"), this.#target.address));
    } catch (thrown) {
      const { broken } = this.#wire;
      this.#fail(fromConnect(broken.aborted ? broken.reason : thrown, this.#target.address));
    } finally {
      this.#wire.close();
    }
  }

  #fail(failure: unknown): void {
    this.#failure ??= failure;
    this.#outbox.close();
    const open = [...this.#open.values()];
    this.#open.clear();
    for (const each of open) {
      each.fail(failure);
    }
  }

  /** With nothing going on, the program can end. */
  #rest(): void {
    if (this.#open.size === 0) {
      this.#wire.hold(false);
    }
  }
}

/** What cannot be encoded must not reach the line: it would break it for all. */
function encodingFault(request: SessionRequest): RangeError | undefined {
  try {
    toBinary(SessionRequestSchema, request);
    return undefined;
  } catch (cause) {
    return new RangeError(`this cannot be asked for: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
}

function isLast(event: AcquireEvent, request: AcquireRequest): boolean {
  return event.case === "ended" || event.case === "declined" || (event.case === "granted" && request.detached);
}

/** The error for a call that was sent, and not answered in time. */
export function unanswered(target: Target, ms: number): ArbiterUnavailable {
  return new ArbiterUnavailable(`the arbiter at ${target.address} did not answer within ${Math.round(ms)} ms`, {
    code: "DEADLINE_EXCEEDED",
    mayHaveArrived: true,
  });
}
