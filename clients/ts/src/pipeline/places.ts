/**
 * Back-pressure: so many may be in flight, and whoever comes next waits, first come first served.
 *
 * Law: a place is handed to one who waits for it still.
 */

interface Waiter {
  readonly hand: () => void;
  readonly refuse: (error: unknown) => void;
}

export class Places {
  #free: number;
  readonly #waiting = new Set<Waiter>();

  constructor(count: number) {
    this.#free = count;
  }

  /** Takes a place, when there is one; throws the signal's reason, or what `refuse` was told, when that comes first. */
  take(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.#free > 0) {
        this.#free -= 1;
        resolve();
        return;
      }
      const over = () => {
        this.#waiting.delete(waiter);
        signal?.removeEventListener("abort", abort);
      };
      const waiter: Waiter = {
        hand: () => {
          over();
          resolve();
        },
        refuse: (error) => {
          over();
          reject(error);
        },
      };
      const abort = () => waiter.refuse(signal?.reason);
      this.#waiting.add(waiter);
      signal?.addEventListener("abort", abort);
    });
  }

  /** A place is free. */
  giveBack(): void {
    const [first] = this.#waiting;
    if (first === undefined) {
      this.#free += 1;
    } else {
      first.hand();
    }
  }

  /** Whoever waits gets this. */
  refuse(error: Error): void {
    for (const waiter of [...this.#waiting]) {
      waiter.refuse(error);
    }
  }
}
