import { describe, expect, test } from "vitest";
import { Mailbox } from "./mailbox.js";

describe("a mailbox", () => {
  test("keeps the order, for readers that came before and after", async () => {
    const box = new Mailbox<number>();
    const early = [box.read(), box.read()];
    for (const each of [1, 2, 3]) {
      expect(box.put(each)).toBe(true);
    }
    expect(await Promise.all([...early, box.read()])).toEqual([1, 2, 3]);
  });
  test("is read to its end, and takes nothing after it", async () => {
    const box = new Mailbox<number>();
    box.put(1);
    box.close();
    expect(box.put(2)).toBe(false);
    box.fail(new Error("too late"));
    const read: number[] = [];
    for await (const each of box) {
      read.push(each);
    }
    expect(read).toEqual([1]);
    expect(await box.read()).toBeUndefined();
  });
  test("fails after what was in it, and for ever", async () => {
    const box = new Mailbox<number>();
    box.put(1);
    box.fail(new Error("cut"));
    expect(await box.read()).toBe(1);
    await expect(box.read()).rejects.toThrow("cut");
    await expect(box.read()).rejects.toThrow("cut");
  });
  test("wakes those who wait when it fails", async () => {
    const box = new Mailbox<number>();
    const waiting = box.read();
    box.fail(new Error("cut"));
    await expect(waiting).rejects.toThrow("cut");
  });
});
