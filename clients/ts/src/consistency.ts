/**
 * Whether the CPU comes to the same result as the GPU, looked at on a fraction of the tasks.
 *
 * Law: a check only looks on. What the caller gets is the GPU's result, whatever the CPU's function, the comparison or the
 * callback does; each comparison counts once, and a mismatch is never silent.
 */
import { isDeepStrictEqual } from "node:util";
import { close, type Tolerance } from "./comparing.js";
import { type Logger, stderrLogger } from "./logger.js";

/** The CPU came to another result than the GPU. */
export interface Mismatch<T = unknown, C = unknown> {
  readonly taskType: string;
  readonly gpuResult: T;
  readonly cpuResult: C;
}

/** What came of the checks so far: checked = matched + mismatched + failed. */
export interface ConsistencyCounts {
  readonly checked: number;
  readonly matched: number;
  readonly mismatched: number;
  /** The CPU's function or the comparison threw. */
  readonly failed: number;
}

export interface ConsistencyOptions<T = unknown, C = unknown> {
  /** The fraction of the tasks, 0 to 1; 0.01 unless told. */
  readonly rate?: number | undefined;
  /**
   * "exact" (deeply equal) unless told, "allclose" (numbers nearly so), or a function of the GPU's and the CPU's result
   * that says whether they agree.
   */
  readonly compare?: "exact" | "allclose" | ((gpuResult: T, cpuResult: C) => boolean | Promise<boolean>) | undefined;
  readonly onMismatch?: ((mismatch: Mismatch<T, C>) => unknown) | undefined;
  /** How far apart numbers may be for "allclose": absolute + relative × the CPU's; 1e-8 and 1e-5 unless told. */
  readonly relative?: number | undefined;
  readonly absolute?: number | undefined;
  /** Where the choice of tasks comes from: a number from 0 up to 1. */
  readonly random?: (() => number) | undefined;
  /** Where mismatches are told; stderr unless told. */
  readonly logger?: Logger | undefined;
}

/** Runs a fraction of the tasks on the CPU, too, and compares. One may serve many tasks. Throws a RangeError for a rate
 * or a comparison that is none. */
export class ConsistencyCheck<in T = unknown, in C = unknown> {
  readonly #rate: number;
  readonly #agree: (gpuResult: T, cpuResult: C) => boolean | Promise<boolean>;
  readonly #onMismatch: ((mismatch: Mismatch<T, C>) => unknown) | undefined;
  readonly #random: () => number;
  readonly #logger: Logger;
  #matched = 0;
  #mismatched = 0;
  #failed = 0;

  constructor(options: ConsistencyOptions<T, C> = {}) {
    const { rate = 0.01, compare = "exact", relative = 1e-5, absolute = 1e-8 } = options;
    if (!(rate >= 0 && rate <= 1)) {
      throw new RangeError(`rate is ${rate}; write a fraction from 0 to 1`);
    }
    this.#rate = rate;
    this.#agree = comparison(compare, { relative, absolute });
    this.#onMismatch = options.onMismatch;
    this.#random = options.random ?? Math.random;
    this.#logger = options.logger ?? stderrLogger;
  }

  /** What came of the checks so far. */
  get counts(): ConsistencyCounts {
    const [matched, mismatched, failed] = [this.#matched, this.#mismatched, this.#failed];
    return { checked: matched + mismatched + failed, matched, mismatched, failed };
  }

  /** Compares, if it is this task's turn; never throws. */
  async look(taskType: string, gpuResult: T, onCpu: () => C | Promise<C>): Promise<void> {
    if (this.#random() >= this.#rate) {
      return;
    }
    let cpuResult: C;
    let agree: boolean;
    try {
      cpuResult = await onCpu();
      agree = await this.#agree(gpuResult, cpuResult);
    } catch (error) {
      this.#failed += 1;
      this.#logger.warn(`consistency check of ${taskType} failed: ${String(error)}`);
      return;
    }
    if (agree) {
      this.#matched += 1;
      return;
    }
    this.#mismatched += 1;
    const { mismatched, checked } = this.counts;
    const so = `${mismatched} of ${checked} checked so far`;
    this.#logger.warn(`consistency check of ${taskType}: the CPU's result is not the GPU's (${so})`);
    try {
      await this.#onMismatch?.({ taskType, gpuResult, cpuResult });
    } catch (error) {
      this.#logger.error(`onMismatch threw: ${String(error)}`);
    }
  }
}

function comparison<T, C>(
  compare: NonNullable<ConsistencyOptions<T, C>["compare"]>,
  tolerance: Tolerance,
): (gpuResult: T, cpuResult: C) => boolean | Promise<boolean> {
  if (typeof compare === "function") {
    return compare;
  }
  if (compare === "exact") {
    return isDeepStrictEqual;
  }
  if (compare === "allclose") {
    return (gpuResult, cpuResult) => close(gpuResult, cpuResult, tolerance);
  }
  throw new RangeError(`compare is ${String(compare)}; write "exact", "allclose" or a function`);
}
