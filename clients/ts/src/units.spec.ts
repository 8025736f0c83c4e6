import { describe, expect, test } from "vitest";
import { durationMessage, durationMs, parseBytes, parseDuration } from "./units.js";

describe("sizes", () => {
  test.each([
    [6442450944, 6442450944n],
    [6442450944n, 6442450944n],
    ["6GiB", 6442450944n],
    ["6 gib", 6442450944n],
    ["512MiB", 536870912n],
    ["1.5GB", 1500000000n],
    ["0.001kB", 1n],
    ["17", 17n],
    [2n ** 64n - 1n, 2n ** 64n - 1n],
  ])("%s is %s bytes", (written, bytes) => expect(parseBytes(written)).toBe(bytes));

  test.each(["6G", "six", "", "-1GiB", "1e3", "6GiB.", "1..5GB"])("%j is refused", (written) =>
    expect(() => parseBytes(written)).toThrow(RangeError),
  );
  test.each([-1, 1.5, Number.NaN, 2 ** 60, 2n ** 64n, -1n])("%s is refused", (written) =>
    expect(() => parseBytes(written)).toThrow(RangeError),
  );
  test("what is no size at all is a TypeError", () => {
    expect(() => parseBytes(true as never)).toThrow(TypeError);
    expect(() => parseBytes(null as never)).toThrow("null is not a size");
  });
  test("the message names what is allowed", () =>
    expect(() => parseBytes("6G")).toThrow('"G" is no unit; write a number'));
});

describe("durations", () => {
  test.each([
    [400, 400],
    [0.4, 0.4],
    ["400ms", 400],
    ["3s", 3_000],
    ["1.5s", 1_500],
    ["10m", 600_000],
    ["2h", 7_200_000],
    ["1d", 86_400_000],
    ["250us", 0.25],
    [0, 0],
  ])("%s is %s ms", (written, ms) => expect(parseDuration(written)).toBe(ms));

  test.each(["3", "3S", "3sec", "-3s", ""])("%j is refused", (written) =>
    expect(() => parseDuration(written)).toThrow(RangeError),
  );
  test.each([-1, Number.NaN, Number.POSITIVE_INFINITY, 1e18])("%s is refused", (written) =>
    expect(() => parseDuration(written)).toThrow(RangeError),
  );
  test("what is no duration at all is a TypeError", () =>
    expect(() => parseDuration(3n as never)).toThrow("3 is not a duration"));
  test("a message keeps the microseconds, and comes back the same", () => {
    const message = durationMessage("1.25s");
    expect(message).toMatchObject({ seconds: 1n, nanos: 250_000_000 });
    expect(message && durationMs(message)).toBe(1_250);
    expect(durationMessage(undefined)).toBeUndefined();
  });
});
