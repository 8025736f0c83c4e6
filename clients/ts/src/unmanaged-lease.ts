/**
 * Work without an arbiter: it was out of reach, and the program chose to proceed.
 *
 * Law: nothing is pretended. There is no lease id, no token and no GPU, and `unmanaged` says so. It asks nobody for
 * anything, and whatever else uses the GPU is not known.
 */
import { now } from "./clock.js";
import { LeaseLost } from "./errors.js";
import type { Abortable, Lease } from "./lease.js";
import { workReport } from "./options.js";
import { type Duration, parseBytes, parseDuration, type Size } from "./units.js";
import type { Released, WorkReport } from "./values.js";
import { abortable } from "./waiting.js";

export class UnmanagedLease implements Lease {
  readonly unmanaged = true;
  readonly leaseId = "";
  readonly fencingToken = 0n;
  readonly requestId: string;
  readonly taskType: string;
  readonly gpus = [];
  readonly visibleDevices = process.env["CUDA_VISIBLE_DEVICES"];
  readonly node = "";
  readonly queueWaitMs = 0;
  readonly sharing = "";
  readonly priority = 0;
  readonly detached = false;
  readonly message = undefined;
  readonly holdRemainingMs = undefined;
  readonly ttlRemainingMs = undefined;
  readonly yieldRequest = undefined;
  readonly uncertain = false;
  readonly lost = false;
  readonly lostReason = "";
  readonly lostDetail = "";
  readonly reported = undefined;
  readonly yieldSignal: AbortSignal = new AbortController().signal;
  released: Released | undefined;
  readonly #stop = new AbortController();
  readonly #began = now();

  constructor(taskType: string, requestId: string) {
    this.taskType = taskType;
    this.requestId = requestId;
  }

  get signal(): AbortSignal {
    return this.#stop.signal;
  }
  get heldMs(): number {
    return now() - this.#began;
  }

  readonly check = (): void => {
    if (this.released !== undefined) {
      throw new LeaseLost("the work without an arbiter is over", { reason: "RELEASED" });
    }
  };
  // biome-ignore lint/suspicious/useAwait: what is wrong with it is a rejection, as with a lease
  readonly renew = async (options: { readonly extendHold?: Duration | undefined } & Abortable = {}): Promise<void> => {
    parseDuration(options.extendHold ?? 0);
    this.check();
  };
  // biome-ignore lint/suspicious/useAwait: as above
  readonly resize = async (options: { readonly memory?: Size | undefined } & Abortable): Promise<void> => {
    parseBytes(options.memory ?? 0);
    this.check();
  };
  readonly report = (report: WorkReport): void => void workReport(report);
  readonly release = async (report?: WorkReport, options: Abortable = {}): Promise<Released> => {
    workReport(report ?? {});
    this.released ??= {
      reason: "",
      heldMs: this.heldMs,
      alreadyEnded: false,
      memoryVerdict: "",
      memoryPeakBytes: undefined,
    };
    return await abortable(Promise.resolve(this.released), options.signal);
  };
  stop(reason: unknown): void {
    this.#stop.abort(reason);
  }
  async leave(): Promise<void> {
    await this.release();
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }
}
