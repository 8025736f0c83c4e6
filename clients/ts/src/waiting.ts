/**
 * Waiting that can be given up: by a signal, by time.
 *
 * Law: whatever ends the wait, no listener and no timer of it is left.
 */

import { setMaxListeners } from "node:events";

/** Calls back when the signal is aborted from now on, until the returned function is called. */
export function onAbort(signal: AbortSignal | undefined, callback: () => void): () => void {
  if (signal === undefined) {
    return () => {};
  }
  // A signal of the whole program has a listener for each request under way: Node would warn of a leak from the eleventh.
  setMaxListeners(0, signal);
  signal.addEventListener("abort", callback, { once: true });
  return () => signal.removeEventListener("abort", callback);
}

/** What a promise comes to, unless the signal comes first: then its reason is thrown, and the promise is left alone. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) {
    return promise;
  }
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) {
      promise.catch(() => {});
      abort();
      return;
    }
    promise.then(resolve, reject).finally(onAbort(signal, abort));
  });
}

/** A signal that is aborted by the first of several, until it is cut off from them. */
export interface Linked {
  readonly signal: AbortSignal;
  readonly unlink: () => void;
}

/** Links signals. AbortSignal.any would leave something of each request at a signal that lives as long as the program. */
export function link(...signals: ReadonlyArray<AbortSignal | undefined>): Linked {
  const first = new AbortController();
  const unlinks = signals.map((signal) => {
    const abort = () => first.abort(signal?.reason);
    if (signal?.aborted) {
      abort();
    }
    return onAbort(signal, abort);
  });
  const unlink = () => {
    for (const each of unlinks) {
      each();
    }
  };
  return { signal: first.signal, unlink };
}

/** Waits; throws the signal's reason when that comes first. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const forget = onAbort(signal, () => {
      clearTimeout(timer);
      reject(signal?.reason);
    });
    const timer = setTimeout(() => {
      forget();
      resolve();
    }, ms);
  });
}

/** Waits until a promise has settled, in whatever way, for at most so long; whether it has. */
export async function settled(promise: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  try {
    return await Promise.race([
      promise.then(
        () => true,
        () => true,
      ),
      late,
    ]);
  } finally {
    clearTimeout(timer);
  }
}

/** A flag that can be waited for; once up, it stays up. */
export class Flag {
  #up = false;
  readonly #waiters = new Set<() => void>();

  get up(): boolean {
    return this.#up;
  }

  raise(): void {
    this.#up = true;
    for (const wake of this.#waiters) {
      wake();
    }
    this.#waiters.clear();
  }

  /** Waits for the flag, for at most so long; whether it is up. */
  wait(ms: number): Promise<boolean> {
    if (this.#up || ms <= 0) {
      return Promise.resolve(this.#up);
    }
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.#waiters.delete(wake);
        resolve(this.#up);
      };
      // Timers hold no more than 31 bits.
      const timer = setTimeout(wake, Math.min(ms, 2 ** 31 - 1));
      this.#waiters.add(wake);
    });
  }
}
