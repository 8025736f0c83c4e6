import { describe, expect, test } from "vitest";
import { abortable, Flag, link, settled, sleep } from "./waiting.js";

const never = new Promise<never>(() => {});

describe("a wait that can be given up", () => {
  test("comes to what the promise comes to", async () => {
    const { signal } = new AbortController();
    expect(await abortable(Promise.resolve(1), signal)).toBe(1);
    await expect(abortable(Promise.reject(new Error("no")), signal)).rejects.toThrow("no");
    expect(await abortable(Promise.resolve(1), undefined)).toBe(1);
  });
  test("ends with the reason of the signal", async () => {
    const control = new AbortController();
    const waiting = [abortable(never, control.signal), sleep(60_000, control.signal)];
    control.abort("enough");
    for (const each of [...waiting, abortable(never, control.signal), sleep(1, control.signal)]) {
      await expect(each).rejects.toBe("enough");
    }
  });
});

test("settled says whether, not how", async () => {
  expect(await settled(Promise.resolve(), 60_000)).toBe(true);
  expect(await settled(Promise.reject(new Error("no")), 60_000)).toBe(true);
  expect(await settled(never, 1)).toBe(false);
});

describe("a flag", () => {
  test("wakes all who wait, and stays up", async () => {
    const flag = new Flag();
    const waiting = [flag.wait(60_000), flag.wait(60_000)];
    flag.raise();
    expect(await Promise.all([...waiting, flag.wait(0), flag.wait(60_000)])).toEqual([true, true, true, true]);
  });
  test("is not up when the time is over", async () => {
    const flag = new Flag();
    expect(await flag.wait(1)).toBe(false);
    expect(await flag.wait(0)).toBe(false);
    expect(flag.up).toBe(false);
  });
});

describe("linked signals", () => {
  test("the first one counts, whenever it comes", () => {
    const [one, two] = [new AbortController(), new AbortController()];
    const { signal } = link(undefined, one.signal, two.signal);
    expect(signal.aborted).toBe(false);
    two.abort("two");
    one.abort("one");
    expect(signal.reason).toBe("two");
    expect(link(one.signal, two.signal).signal.reason).toBe("one");
  });
  test("not any more once they are cut off", () => {
    const control = new AbortController();
    const { signal, unlink } = link(control.signal);
    unlink();
    control.abort();
    expect(signal.aborted).toBe(false);
  });
});
