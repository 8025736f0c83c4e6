/** Waiting for what a test expects to become so. */
import { setTimeout as sleep } from "node:timers/promises";

/** Waits until a condition holds; fails when it does not in time. */
export async function until(condition: () => unknown, what = "it", ms = 15_000): Promise<void> {
  const deadline = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > deadline) {
      throw new Error(`waited ${ms} ms in vain for ${what}`);
    }
    await sleep(5);
  }
}
