/**
 * Work without an arbiter: it was out of reach, and the program chose to proceed.
 *
 * Law: nothing is pretended. There is no lease id, no token and no GPU, and `arbitrated` is false.
 */
import { LeaseLost } from "./errors.js";
import type { Abortable, Lease } from "./lease.js";
import { workReport } from "./options.js";
import type { Released, WorkReport } from "./values.js";
import { abortable } from "./waiting.js";

export class UnarbitratedLease implements Lease {
  readonly arbitrated = false;
  readonly leaseId = "";
  readonly fencingToken = 0n;
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
  readonly yieldSignal: AbortSignal = new AbortController().signal;
  released: Released | undefined;
  readonly #stop = new AbortController();
  readonly #began = performance.now();

  constructor(
    readonly taskType: string,
    readonly requestId: string,
  ) {}

  get signal(): AbortSignal {
    return this.#stop.signal;
  }
  get heldMs(): number {
    return performance.now() - this.#began;
  }
  readonly reported = undefined;

  readonly check = (): void => {
    if (this.released !== undefined) {
      throw new LeaseLost("the work without an arbiter is over", { reason: "RELEASED" });
    }
  };
  readonly renew = (): Promise<void> => Promise.resolve();
  readonly resize = (): Promise<void> => Promise.resolve();
  readonly report = (report: WorkReport): void => void workReport(report);
  readonly release = (_report?: WorkReport, options: Abortable = {}): Promise<Released> => {
    this.released ??= {
      reason: "RELEASED",
      heldMs: this.heldMs,
      alreadyEnded: false,
      memoryVerdict: "",
      memoryPeakBytes: undefined,
    };
    return abortable(Promise.resolve(this.released), options.signal);
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
