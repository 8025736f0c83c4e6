/**
 * The word in the log about an arbiter that is out of reach, where the program chose to proceed.
 *
 * Law: proceeding without an arbiter is never silent, and never noisy: one warning when an outage begins, one line when
 * it is over, however many requests fall into it.
 */
import type { ArbiterUnavailable } from "./errors.js";
import type { Logger } from "./logger.js";

export class Outage {
  readonly #logger: Logger;
  #lasts = false;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** A request goes on without a lease. */
  noticed(failure: ArbiterUnavailable): void {
    if (!this.#lasts) {
      this.#lasts = true;
      this.#logger.warn(`going on WITHOUT leases, since the arbiter is unavailable: ${failure.message}`);
    }
  }

  /** The arbiter answered. */
  over(): void {
    if (this.#lasts) {
      this.#lasts = false;
      this.#logger.warn("the arbiter is back: leases are asked for again");
    }
  }
}
