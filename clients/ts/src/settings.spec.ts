import { describe, expect, test } from "vitest";
import { placeOf, resolveAddress, resolveOnUnavailable, resolveToken } from "./settings.js";

describe("the address", () => {
  test("comes from the argument, the environment, the default", () => {
    const environment = { GPU_ARBITER_ADDRESS: "other:1" };
    expect(resolveAddress("here:2", environment)).toBe("here:2");
    expect(resolveAddress(undefined, environment)).toBe("other:1");
    expect(resolveAddress(undefined, {})).toBe("127.0.0.1:50051");
    expect(resolveAddress(undefined, { GPU_ARBITER_ADDRESS: "" })).toBe("127.0.0.1:50051");
    expect(resolveAddress(" localhost:3 ", {})).toBe("localhost:3");
  });
  test.each([
    ["localhost:50051", { host: "localhost", port: 50051 }],
    ["[::1]:1", { host: "::1", port: 1 }],
    ["unix:/run/arbiter.sock", { path: "/run/arbiter.sock" }],
    ["unix:///run/arbiter.sock", { path: "/run/arbiter.sock" }],
    ["unix:arbiter.sock", { path: "arbiter.sock" }],
  ])("%s", (address, place) => expect(placeOf(address)).toEqual(place));
  test.each(["localhost", ":1", "h:0", "h:65536", "h:x", "::1:1", "http://h:1", "unix:", "h:1/x", ""])(
    "%j is refused, and said why",
    (address) => expect(() => resolveAddress(address, {})).toThrow(/is not an address.*write "host:port"/),
  );
});

describe("what to do without an arbiter", () => {
  test("comes from the argument, the environment, the default", () => {
    const environment = { GPU_ARBITER_ON_UNAVAILABLE: "proceed" };
    expect(resolveOnUnavailable("fail", environment)).toBe("fail");
    expect(resolveOnUnavailable(undefined, environment)).toBe("proceed");
    expect(resolveOnUnavailable(undefined, {})).toBe("fail");
  });
  test("anything else is refused", () =>
    expect(() => resolveOnUnavailable(undefined, { GPU_ARBITER_ON_UNAVAILABLE: "maybe" })).toThrow(
      'onUnavailable is "maybe"; write "fail" or "proceed"',
    ));
});

test("a token comes from the argument or the environment", () => {
  expect(resolveToken("a", { GPU_ARBITER_TOKEN: "b" })).toBe("a");
  expect(resolveToken(undefined, { GPU_ARBITER_TOKEN: "b" })).toBe("b");
  expect(resolveToken(undefined, {})).toBeUndefined();
  expect(resolveToken("", { GPU_ARBITER_TOKEN: "b" })).toBeUndefined();
  expect(() => resolveToken(undefined, { GPU_ARBITER_TOKEN: "secret\n" })).toThrow(/^the token holds .* line break/);
});
