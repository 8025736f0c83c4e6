import { describe, expect, test } from "vitest";
import { keptLog } from "../spec/support/looking.js";
import { ConsistencyCheck, type Mismatch } from "./consistency.js";

const always = { rate: 1 } as const;

/** Whether the two agree. */
async function agree(compare: "exact" | "allclose", gpu: unknown, cpu: unknown): Promise<boolean> {
  const check = new ConsistencyCheck({ ...always, compare, logger: keptLog() });
  await check.look("ASR", gpu, () => cpu);
  return check.counts.matched === 1;
}

describe("what agrees", () => {
  test.each([
    [1, 1 + 1e-6],
    [
      [1, [2, 3]],
      [1, [2, 3 - 1e-6]],
    ],
    [Float32Array.of(0.1, 0.2), [0.1, 0.2]],
    [
      { text: "a", scores: [0.5] },
      { text: "a", scores: [0.500001] },
    ],
    [Number.NaN, Number.NaN],
    [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY],
    ["text", "text"],
    [null, null],
  ])("closely: %o and %o", async (gpu, cpu) => expect(await agree("allclose", gpu, cpu)).toBe(true));

  test.each([
    [1, 1.1],
    [1, "1"],
    [[1], [1, 2]],
    [[1, 2], [1]],
    [[undefined], []],
    [{ a: 1 }, { b: 1 }],
    [{ a: 1 }, { a: 1, b: 2 }],
    [Number.NaN, 1],
    [Number.POSITIVE_INFINITY, 1],
    [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
    [new Map([[1, 2]]), new Map([[1, 3]])],
    [null, {}],
  ])("not even closely: %o and %o", async (gpu, cpu) => expect(await agree("allclose", gpu, cpu)).toBe(false));

  test("exactly", async () => {
    expect(await agree("exact", { a: [1, { b: 2 }] }, { a: [1, { b: 2 }] })).toBe(true);
    expect(await agree("exact", 1, 1 + 1e-9)).toBe(false);
  });

  test("as a function says, with the tolerances that are told", async () => {
    const check = new ConsistencyCheck<string, number>({ ...always, compare: async (gpu, cpu) => gpu.length === cpu });
    await check.look("ASR", "four", () => 4);
    expect(check.counts).toEqual({ checked: 1, matched: 1, mismatched: 0, failed: 0 });
    const loose = new ConsistencyCheck({ ...always, compare: "allclose", absolute: 1, logger: keptLog() });
    await loose.look("ASR", 1, () => 1.9);
    await loose.look("ASR", 1, () => 2.1);
    expect(loose.counts).toMatchObject({ matched: 1, mismatched: 1 });
  });
});

test("a mismatch is counted, told, and handed on; a callback that throws changes nothing", async () => {
  const logger = keptLog();
  const told: Mismatch[] = [];
  const onMismatch = (mismatch: Mismatch) => {
    told.push(mismatch);
    throw new Error("a bug of the caller's");
  };
  const check = new ConsistencyCheck({ ...always, onMismatch, logger });
  await check.look("ASR", "gpu", async () => "cpu");
  expect(told).toEqual([{ taskType: "ASR", gpuResult: "gpu", cpuResult: "cpu" }]);
  expect(logger.lines).toEqual([
    "warn: consistency check of ASR: the CPU's result is not the GPU's (1 of 1 checked so far)",
    "error: onMismatch threw: Error: a bug of the caller's",
  ]);
});

test("work on the CPU or a comparison that throws is counted, and told", async () => {
  const logger = keptLog();
  const compare = (gpu: number) => {
    throw new Error(`cannot compare ${gpu}`);
  };
  const check = new ConsistencyCheck<number, number>({ ...always, compare, logger });
  await check.look("ASR", 1, () => 1);
  await check.look("ASR", 1, () => Promise.reject(new Error("no CPU")));
  expect(check.counts).toEqual({ checked: 2, matched: 0, mismatched: 0, failed: 2 });
  expect(logger.lines.map((line) => line.split("failed: ")[1])).toEqual(["Error: cannot compare 1", "Error: no CPU"]);
});

test("a fraction of the tasks is looked at, as chance has it", async () => {
  const rolls = [0.2, 0.3, 0.29, 0.9];
  const check = new ConsistencyCheck({ rate: 0.3, random: () => rolls.shift() ?? 1 });
  for (let task = 0; task < 4; task++) {
    await check.look("ASR", task, () => task);
  }
  expect(check.counts.checked).toBe(2);
});

test.each([{ rate: -0.1 }, { rate: 1.5 }, { rate: Number.NaN }, { compare: "nearly" as never }])(
  "%o is refused",
  (options) => expect(() => new ConsistencyCheck(options)).toThrow(RangeError),
);
