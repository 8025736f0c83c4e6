/**
 * The clock that leases are counted by: milliseconds that never jump back.
 *
 * Law: it goes on while the machine sleeps where the system has such a clock (Linux), because the arbiter's does too:
 * a holder that slept past its ttl must find its lease gone.
 */
import { uptime } from "node:os";

/** Sources of time: both monotonic, in milliseconds; the second one goes on while the machine sleeps. */
export interface Sources {
  readonly running: () => number;
  readonly booted: (() => number) | undefined;
}

/** What the two sources may differ by without a sleep: the second one is coarse. */
const COARSE_MS = 1_000;

/** A clock made of two sources: as fine as the first, and ahead of it by every sleep that the second one saw. */
export function clockOf(sources: Sources): () => number {
  const { running, booted } = sources;
  if (booted === undefined) {
    return running;
  }
  const apart = booted() - running();
  let slept = 0;
  return () => {
    const moment = running();
    const ahead = booted() - moment - apart;
    // Only ever forward, so that the clock never jumps back.
    if (ahead > slept + COARSE_MS) {
      slept = ahead;
    }
    return moment + slept;
  };
}

/** Milliseconds since some fixed moment; comparable only within this process. */
export const now: () => number = clockOf({
  running: () => performance.now(),
  booted: process.platform === "linux" ? () => uptime() * 1_000 : undefined,
});
