/** The arbiter of this node, as its clients call it. */
import { create } from "@bufbuild/protobuf";
import { Admin } from "./admin.js";
import { releasedOf, yieldOf } from "./answers.js";
import { Asking } from "./asking.js";
import { now } from "./clock.js";
import { ArbiterError, ArbiterUnavailable, Declined, FallbackToCpu } from "./errors.js";
import {
  type AcquireRequest,
  CheckFenceRequestSchema,
  ReleaseRequestSchema,
  RenewRequestSchema,
  ReportWorkRequestSchema,
  ResizeRequestSchema,
} from "./gen/gpuarbiter/v1/gpu_arbiter_pb.js";
import type { Lease as LeaseMessage } from "./gen/gpuarbiter/v1/lease_pb.js";
import type { ArbiterSnapshot } from "./gen/gpuarbiter/v1/snapshot_pb.js";
import { HeldLease } from "./held-lease.js";
import { holderOf } from "./holder.js";
import type { Abortable, Lease } from "./lease.js";
import { type Logger, stderrLogger } from "./logger.js";
import type { Callbacks } from "./notices.js";
import {
  acquireRequest,
  type RequestOptions,
  refuseOthers,
  set,
  sharingOf,
  text,
  workContext,
  workReport,
} from "./options.js";
import { Outage } from "./outage.js";
import type { Acquired, Outcome } from "./outcomes.js";
import { Session } from "./session.js";
import { type OnUnavailable, resolveAddress, resolveOnUnavailable, resolveToken, type Source } from "./settings.js";
import { type SnapshotOptions, snapshot, type WatchOptions, watch } from "./snapshots.js";
import { timing } from "./timing.js";
import { currentTrace } from "./tracing.js";
import { type Duration, durationMessage, optionalMs, parseBytes, type Size } from "./units.js";
import { UnmanagedLease } from "./unmanaged-lease.js";
import type { Fence, Queued, Released, WorkContext, WorkReport, YieldRequest } from "./values.js";
import { link, settled } from "./waiting.js";
import { runUnderLease, type WorkOptions } from "./work.js";

/** Where the arbiter is, and who asks. */
export interface ClientOptions {
  /** "host:port" or "unix:/path"; otherwise GPU_ARBITER_ADDRESS, otherwise 127.0.0.1:50051. */
  readonly address?: string | undefined;
  /** A stable name of this program; one made of program, host and pid otherwise. */
  readonly clientId?: string | undefined;
  /** A bearer token, where the arbiter asks for one; otherwise GPU_ARBITER_TOKEN. */
  readonly token?: string | undefined;
  /** What to do when the arbiter is out of reach; otherwise GPU_ARBITER_ON_UNAVAILABLE, otherwise "fail". */
  readonly onUnavailable?: OnUnavailable | undefined;
  /** Where warnings go; stderr unless told. */
  readonly logger?: Logger | undefined;
}

/** Everything about a lease that can be said when it is asked for. */
export interface LeaseOptions extends RequestOptions, Callbacks {
  /** Gives up the wait: the request is taken back, and the signal's reason is thrown. */
  readonly signal?: AbortSignal | undefined;
  /** Called while waiting, whenever the arbiter says where the request stands. */
  readonly onQueued?: ((queued: Queued) => unknown) | undefined;
  /** As in ClientOptions, for this lease. */
  readonly onUnavailable?: OnUnavailable | undefined;
}

/** Which lease of another process is meant. */
export interface LeaseTarget extends Abortable {
  readonly leaseId: string;
  /** When given and not the lease's, nothing is done: StaleToken. */
  readonly fencingToken?: bigint | undefined;
}

/**
 * A client of one arbiter; make one per program and keep it. All its leases share one stream. Throws a RangeError when
 * an option, or the environment, says something that cannot be.
 */
export class GpuArbiterClient implements AsyncDisposable {
  readonly #session: Session;
  readonly #onUnavailable: OnUnavailable;
  readonly #logger: Logger;
  readonly #outage: Outage;
  readonly #held = new Set<HeldLease>();
  readonly #asking = new Set<Promise<unknown>>();
  readonly #closing = new AbortController();

  constructor(options: ClientOptions = {}) {
    const address = resolveAddress(options.address);
    const clientId = options.clientId === undefined ? undefined : text("clientId", options.clientId);
    this.#session = new Session({ address, token: resolveToken(options.token) }, clientId);
    this.#onUnavailable = resolveOnUnavailable(options.onUnavailable);
    this.#logger = options.logger ?? stderrLogger;
    this.#outage = new Outage(this.#logger);
  }

  /** Where the arbiter is. */
  get address(): string {
    return this.#session.target.address;
  }

  get #source(): Source {
    return { target: this.#session.target, closing: this.#closing.signal };
  }

  /** What operators can do. */
  get admin(): Admin {
    return new Admin(this.#source);
  }

  /** It was closed: nothing can be asked of it any more. */
  get closed(): boolean {
    return this.#closing.signal.aborted;
  }

  /**
   * Asks for a lease, and waits as long as its policy says. A lease that comes is to be released; a decline is an
   * outcome, too. Throws WaitTimeout, ArbiterUnavailable, … (see errors), a RangeError or TypeError when an option says
   * something that cannot be asked for, and the signal's reason.
   */
  async acquire(taskType: string, options: LeaseOptions = {}): Promise<Acquired> {
    options.signal?.throwIfAborted();
    refuseOthers({ onQueued: options.onQueued, onYield: options.onYield, onLost: options.onLost });
    const onUnavailable = resolveOnUnavailable(options.onUnavailable ?? this.#onUnavailable);
    const request = acquireRequest(taskType, options, await currentTrace());
    try {
      const acquired = await this.#ask(request, options);
      this.#outage.over();
      return acquired;
    } catch (failure) {
      const unavailable = failure instanceof ArbiterUnavailable;
      if (failure instanceof ArbiterError && !unavailable) {
        this.#outage.over();
      }
      if (!unavailable || onUnavailable === "fail" || this.closed) {
        throw failure;
      }
      this.#outage.noticed(failure);
      return { kind: "granted", lease: new UnmanagedLease(taskType, request.requestId) };
    }
  }

  /** As `acquire`, but a decline is thrown: Skipped or FallbackToCpu. For `await using`. */
  async lease(taskType: string, options: LeaseOptions = {}): Promise<Lease> {
    const acquired = await this.acquire(taskType, options);
    if (acquired.kind !== "granted") {
      throw acquired.decline;
    }
    return acquired.lease;
  }

  /**
   * Acquires, does the work, and releases with a report of how it went, in every way out. What the work throws is
   * thrown. The context says what the work belongs to, what to ask for, and, by its signal, when to give up: the wait
   * at first, then the work, by aborting the lease's signal.
   */
  withGpuLease<T, C = undefined>(
    taskType: string,
    work: (lease: Lease) => T | Promise<T>,
    context: WorkOptions<C, T> = {},
  ): Promise<Outcome<T, C>> {
    return runUnderLease(this, taskType, work, context);
  }

  async #ask(request: AcquireRequest, options: LeaseOptions): Promise<Acquired> {
    const { signal, unlink } = link(options.signal, this.#closing.signal);
    const asked = { onQueued: options.onQueued, signal, logger: this.#logger };
    const answering = new Asking(this.#session, request, asked).answer();
    this.#asking.add(answering);
    try {
      const answer = await answering;
      if (answer instanceof Declined) {
        return answer instanceof FallbackToCpu
          ? { kind: "fallbackToCpu", decline: answer }
          : { kind: "skipped", decline: answer };
      }
      const lease = new HeldLease(this.#session, request, answer, options, this.#logger, (over) =>
        this.#held.delete(over),
      );
      this.#held.add(lease);
      return { kind: "granted", lease };
    } finally {
      unlink();
      this.#asking.delete(answering);
    }
  }

  /** Ends a lease, or takes a waiting request back, by its id. What has ended already is no error. */
  async release(
    target: ({ readonly leaseId: string } | { readonly requestId: string }) &
      Abortable & { readonly fencingToken?: bigint | undefined; readonly report?: WorkReport | undefined },
  ): Promise<Released> {
    const value = create(ReleaseRequestSchema, {
      target:
        "leaseId" in target
          ? { case: "leaseId", value: target.leaseId }
          : { case: "requestId", value: target.requestId },
      fencingToken: target.fencingToken ?? 0n,
      ...set("report", target.report === undefined ? undefined : workReport(target.report)),
    });
    return releasedOf(await this.#session.ask({ case: "release", value }, { signal: target.signal }));
  }

  /** Renews a lease by its id. Throws LeaseEnded when it is over. */
  async renew(target: LeaseTarget & { readonly extendHold?: Duration | undefined }): Promise<{
    readonly ttlRemainingMs: number | undefined;
    readonly holdRemainingMs: number | undefined;
    readonly pendingYield: YieldRequest | undefined;
  }> {
    const value = create(RenewRequestSchema, {
      leaseId: target.leaseId,
      fencingToken: target.fencingToken ?? 0n,
      ...set("extendHold", durationMessage(target.extendHold)),
    });
    const reply = await this.#session.ask({ case: "renew", value }, { signal: target.signal });
    return {
      ttlRemainingMs: optionalMs(reply.ttlRemaining),
      holdRemainingMs: optionalMs(reply.holdRemaining),
      pendingYield: reply.pendingYield === undefined ? undefined : yieldOf(reply.pendingYield),
    };
  }

  /** Changes what a lease commits, by its id; the lease as it is then. Throws ResizeRefused when it does not fit. */
  async resize(
    target: LeaseTarget & { readonly memory?: Size | undefined; readonly shared?: boolean | undefined },
  ): Promise<LeaseMessage | undefined> {
    const value = create(ResizeRequestSchema, {
      leaseId: target.leaseId,
      fencingToken: target.fencingToken ?? 0n,
      ...set("memoryBytes", target.memory === undefined ? undefined : parseBytes(target.memory)),
      sharing: sharingOf(target.shared),
    });
    return (await this.#session.ask({ case: "resize", value }, { signal: target.signal })).lease;
  }

  /** Whether a live lease on a GPU (key, index or UUID) has this fencing token. */
  async checkFence(gpu: string, fencingToken: bigint, options: Abortable = {}): Promise<Fence> {
    const value = create(CheckFenceRequestSchema, { gpu: text("gpu", gpu), fencingToken });
    const { current, newestToken } = await this.#session.ask({ case: "checkFence", value }, options);
    return { current, newestToken };
  }

  /** Tells of work that had no lease: a fallback to the CPU, or a skip. */
  async reportWork(
    taskType: string,
    report: WorkReport,
    options: { readonly context?: WorkContext | undefined } & Abortable = {},
  ): Promise<void> {
    const trace = await currentTrace();
    const value = create(ReportWorkRequestSchema, {
      taskType: text("taskType", taskType),
      holder: holderOf(this.#session.clientId, ""),
      report: workReport(report),
      ...set("context", options.context === undefined ? undefined : workContext(options.context)),
      ...trace,
    });
    await this.#session.ask({ case: "reportWork", value }, { signal: options.signal });
  }

  /** The state of the arbiter: GPUs with their memory ledger, leases, queue. */
  snapshot(options: SnapshotOptions = {}): Promise<ArbiterSnapshot> {
    return snapshot(this.#source, options);
  }

  /** The state, and again whenever it changes; it ends by ArbiterUnavailable when the arbiter goes. */
  watch(options: WatchOptions = {}): AsyncIterable<ArbiterSnapshot> {
    return watch(this.#source, options);
  }

  /**
   * Ends watches, takes back what waits, releases what is held (detached leases excepted), and closes the line: all of it
   * within five seconds, whatever the arbiter does.
   */
  async close(): Promise<void> {
    const deadline = now() + timing.releaseMs;
    const left = () => Math.max(0, deadline - now());
    this.#closing.abort(new Error("this client is closed"));
    await settled(Promise.allSettled(this.#asking), timing.withdrawMs);
    const leaving = [...this.#held].map((lease) =>
      lease.detached ? lease.abandon() : lease.giveBack(lease.reported, left()),
    );
    await Promise.all(leaving);
    await this.#session.close(left());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
