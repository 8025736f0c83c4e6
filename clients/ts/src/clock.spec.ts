import { expect, test } from "vitest";
import { clockOf } from "./clock.js";

test("a sleep of the machine counts, and coarseness does not", () => {
  let running = 1_000;
  let booted = 50_000;
  const clock = clockOf({ running: () => running, booted: () => booted });
  expect(clock()).toBe(1_000);
  running += 10;
  booted += 900;
  expect(clock(), "less than a second apart is no sleep").toBe(1_010);
  running += 10;
  booted += 60_000;
  const woken = clock();
  expect(woken).toBe(1_020 + 60_000 + 900 - 20);
  booted -= 5_000;
  running += 1;
  expect(clock(), "it never jumps back").toBe(woken + 1);
});

test("without a second source the first one is all", () => {
  expect(clockOf({ running: () => 7, booted: undefined })()).toBe(7);
});
