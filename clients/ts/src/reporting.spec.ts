import { expect, test } from "vitest";
import { LeaseLost } from "./errors.js";
import { reportOf } from "./reporting.js";

class OutOfMemoryError extends Error {}
class CudaOutOfMemory extends OutOfMemoryError {}

test.each([
  [undefined, "OK"],
  [{ error: new Error("x") }, "FAILED"],
  [{ error: "x" }, "FAILED"],
  [{ error: undefined }, "FAILED"],
  [{ error: new OutOfMemoryError() }, "OUT_OF_MEMORY"],
  [{ error: new CudaOutOfMemory() }, "OUT_OF_MEMORY"],
  [{ error: Object.assign(new Error("x"), { name: "OutOfMemoryError" }) }, "OUT_OF_MEMORY"],
  [{ error: AbortSignal.abort().reason }, "CANCELLED"],
  [{ error: new LeaseLost("x") }, "CANCELLED"],
] as const)("%o is %s", (outcome, result) => expect(reportOf(outcome, 5)).toEqual({ result, duration: 5 }));
