import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { defaultClientId, holderOf, namespaceOf, startTicksOf } from "./holder.js";

test("this process is described", () => {
  const holder = holderOf("me", "proof");
  expect(holder).toMatchObject({ clientId: "me", pid: process.pid, attestation: "proof" });
  if (process.platform === "linux") {
    expect(holder.pidNamespace).toBeGreaterThan(0n);
    expect(holder.processStartTicks).toBe(startTicksOf(readFileSync(`/proc/${process.pid}/stat`, "latin1")));
    expect(holder.processStartTicks).toBeGreaterThan(0n);
  }
});

describe("a name of its own", () => {
  test("is made of program, host and pid", () =>
    expect(defaultClientId("/srv/app/train.js", "node7")).toBe(`train-node7-${process.pid}`));
  test("is its folder's where the file is only called index", () =>
    expect(defaultClientId("/srv/train/index.js", "h")).toBe(`train-h-${process.pid}`));
  test("is never longer than allowed", () => {
    const name = defaultClientId(`/${"x".repeat(200)}.js`, "h".repeat(90));
    expect(name).toHaveLength(128);
    expect(name.endsWith(`-${process.pid}`)).toBe(true);
    expect(defaultClientId("a.js", "h".repeat(300))).toHaveLength(128);
  });
  test("is there without a script", () => expect(defaultClientId("", "h")).toMatch(/^node-h-\d+$/));
});

describe("what /proc says", () => {
  test("a name with spaces and brackets does not mislead", () => {
    const fields = Array.from({ length: 30 }, (_, index) => String(index + 3));
    expect(startTicksOf(`7 (a ) (b) ${fields.join(" ")}\n`)).toBe(22n);
  });
  test.each(["", "7 (x) S 1", `7 (x) ${"x ".repeat(40)}`])("%j tells nothing", (stat) =>
    expect(startTicksOf(stat)).toBe(0n),
  );
  test("a namespace", () => {
    expect(namespaceOf("pid:[4026531836]")).toBe(4026531836n);
    expect(namespaceOf("")).toBe(0n);
  });
});
