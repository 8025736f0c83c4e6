import { describe, expect, test } from "vitest";
import { BusyPolicy, Placement, Sharing } from "./gen/gpuarbiter/v1/lease_pb.js";
import { acquireRequest, type RequestOptions, workReport } from "./options.js";

const NO_TRACE = { traceparent: "", tracestate: "" };
const asked = (options: RequestOptions) => acquireRequest("ASR", options, NO_TRACE);

test("what is left out stays unset, for the policy to decide", () => {
  const request = asked({});
  expect(request).toMatchObject({ taskType: "ASR", busyPolicy: BusyPolicy.UNSPECIFIED, detached: false });
  expect(request.requestId).toMatch(/^[0-9a-f-]{36}$/);
  expect(request.gpu).toMatchObject({ count: 1, memoryBytes: 0n, sharing: Sharing.UNSPECIFIED, candidates: [] });
  for (const field of ["priority", "maxWait", "maxHold", "ttl", "sequence", "context", "holder"] as const) {
    expect(request[field], field).toBeUndefined();
  }
  expect(asked({}).requestId).not.toBe(request.requestId);
});

test("everything that can be asked for arrives", () => {
  const request = acquireRequest(
    "NMT",
    {
      memory: "6GiB",
      count: 2,
      gpus: "gpu:0",
      shared: true,
      priority: 0,
      maxWait: 0,
      maxHold: "10m",
      ttl: "30s",
      detached: true,
      busyPolicy: "FALLBACK_CPU",
      placement: "BEST_FIT",
      resident: "1GiB",
      sequence: { group: "s", index: 3 },
      context: { jobId: "j", utteranceIndex: 0, attributes: { a: "b" } },
      requestId: "r-1",
    },
    { traceparent: "00-a", tracestate: "x=y" },
  );
  expect(request).toMatchObject({
    requestId: "r-1",
    priority: 0,
    maxWait: { seconds: 0n, nanos: 0 },
    maxHold: { seconds: 600n },
    ttl: { seconds: 30n },
    detached: true,
    busyPolicy: BusyPolicy.FALLBACK_CPU,
    sequence: { group: "s", index: 3n },
    context: { jobId: "j", utteranceIndex: 0n, attributes: { a: "b" } },
    traceparent: "00-a",
    tracestate: "x=y",
    gpu: {
      candidates: ["gpu:0"],
      count: 2,
      memoryBytes: 6442450944n,
      sharing: Sharing.SHARED,
      placement: Placement.BEST_FIT,
      residentBytes: 1073741824n,
    },
  });
  expect(asked({ shared: false, gpus: ["0", "1"] }).gpu).toMatchObject({
    sharing: Sharing.EXCLUSIVE,
    candidates: ["0", "1"],
  });
});

describe("what cannot be asked for is refused before anything is sent", () => {
  test.each<[RequestOptions, string]>([
    [{ detached: true }, "detached needs a ttl"],
    [{ detached: true, ttl: 0 }, "detached needs a ttl"],
    [{ busyPolicy: "SOMETIMES" as never }, '"SOMETIMES" is not allowed; write one of WAIT, SKIP, FALLBACK_CPU'],
    [{ busyPolicy: "UNSPECIFIED" as never }, "is not allowed"],
    [{ placement: "toString" as never }, "is not allowed"],
    [{ count: 1.5 }, "count is 1.5; write a whole number"],
    [{ count: -1 }, "count is -1"],
    [{ priority: 2 ** 31 }, "priority is 2147483648; write a whole number from 0 to 2147483647"],
    [{ gpus: 0 as never }, 'gpus is 0; write "gpu:0"'],
    [{ gpus: [0 as never] }, "each of gpus is 0; write a string"],
    [{ shared: "yes" as never }, "shared is yes; write true or false"],
    [{ requestId: 7 as never }, "requestId is 7; write a string"],
    [{ priority: "high" as never }, "priority is high"],
    [{ memory: "6G" }, "is not a size"],
    [{ maxWait: "soon" }, "is not a duration"],
    [{ sequence: { group: "g", index: -1 } }, "sequence.index is -1"],
    [{ context: { utteranceIndex: 0.5 } }, "utteranceIndex is 0.5"],
  ])("%o", (options, why) => expect(() => asked(options)).toThrow(why));
  test("a task without a name, too", () => {
    expect(() => acquireRequest(undefined as never, {}, NO_TRACE)).toThrow("taskType is undefined; write a string");
  });
  test("a report, too", () => expect(() => workReport({ result: "FINE" as never })).toThrow("write one of OK, FAILED"));
});
