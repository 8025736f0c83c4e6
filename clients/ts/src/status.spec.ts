import { create, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { ArbiterError, ArbiterUnavailable, BY_REASON, Unauthenticated } from "./errors.js";
import { ErrorReason, FailureSchema } from "./gen/gpuarbiter/v1/error_pb.js";
import { codeName, fromConnect, fromFailure } from "./status.js";

const AT = "here:1";

type Part = string | Uint8Array;

function message(...fields: Array<[number, Part]>): Uint8Array {
  const writer = new BinaryWriter();
  for (const [field, value] of fields) {
    writer.tag(field, 2);
    if (typeof value === "string") {
      writer.string(value);
    } else {
      writer.bytes(value);
    }
  }
  return writer.finish();
}

function failed(code: Code, said: string, ...details: Array<{ type: string; value: Uint8Array }>): ConnectError {
  const error = new ConnectError(said, code);
  error.details = details;
  return error;
}

const errorInfo = (reason: string, domain = "gpuarbiter", metadata: Record<string, string> = {}) => ({
  type: "google.rpc.ErrorInfo",
  value: message(
    [1, reason],
    [2, domain],
    ...Object.entries(metadata).map(([key, value]): [number, Part] => [3, message([1, key], [2, value])]),
  ),
});
const retryInfo = {
  type: "google.rpc.RetryInfo",
  value: message([1, toBinary(DurationSchema, create(DurationSchema, { seconds: 1n, nanos: 500_000_000 }))]),
};
const badRequest = {
  type: "google.rpc.BadRequest",
  value: message([1, message([1, "task_type"], [2, "must be given"])], [1, message([1, "priority"], [2, "too high"])]),
};

describe("the status of an RPC", () => {
  test("its reason decides the class, and the details are facts", () => {
    const error = fromConnect(
      failed(Code.ResourceExhausted, "full", errorInfo("QUEUE_FULL", "gpuarbiter", { limit: "8" }), retryInfo),
      AT,
    );
    expect(error).toBeInstanceOf(BY_REASON["QUEUE_FULL"]);
    expect(error).toMatchObject({
      name: "QueueFull",
      message: "full",
      reason: "QUEUE_FULL",
      code: "RESOURCE_EXHAUSTED",
      metadata: { limit: "8" },
      retryAfterMs: 1_500,
      transient: false,
    });
  });
  test("the fields of an invalid request are named", () => {
    const error = fromConnect(failed(Code.InvalidArgument, "no", errorInfo("INVALID_REQUEST"), badRequest), AT);
    expect(error.violations).toEqual([
      { field: "task_type", description: "must be given" },
      { field: "priority", description: "too high" },
    ]);
    expect(error.message).toBe("no (task_type: must be given; priority: too high)");
  });
  test("a reason of somebody else's is none", () =>
    expect(fromConnect(failed(Code.NotFound, "x", errorInfo("QUEUE_FULL", "elsewhere")), AT)).toMatchObject({
      name: "ArbiterError",
      reason: "",
    }));
  test("a reason that is not known yet stays", () =>
    expect(fromConnect(failed(Code.Aborted, "x", errorInfo("BRAND_NEW")), AT)).toMatchObject({
      name: "ArbiterError",
      reason: "BRAND_NEW",
    }));
  test("details that cannot be decoded cost no more than themselves", () => {
    const broken = { type: "google.rpc.ErrorInfo", value: Uint8Array.of(0x0a, 0xff) };
    const odd = { type: "google.rpc.RetryInfo", value: Uint8Array.of(0x08, 0x01) };
    const error = fromConnect(failed(Code.Aborted, "x", broken, odd, errorInfo("STALE_TOKEN")), AT);
    expect(error).toMatchObject({ name: "StaleToken", retryAfterMs: undefined });
  });
  test.each([Code.Unavailable, Code.Unknown, Code.Internal, Code.Canceled, Code.Aborted, Code.DeadlineExceeded])(
    "%s without a reason is a line that broke",
    (code) => {
      const error = fromConnect(failed(code, "gone"), AT);
      expect(error).toBeInstanceOf(ArbiterUnavailable);
      expect(error).toMatchObject({
        message: "the arbiter at here:1 cannot be reached: gone",
        mayHaveArrived: true,
        transient: true,
      });
    },
  );
  test("whatever is thrown becomes one", () => {
    expect(fromConnect(new TypeError("odd"), AT)).toBeInstanceOf(ArbiterUnavailable);
    expect(fromConnect("odd", AT)).toBeInstanceOf(ArbiterUnavailable);
    const error = new ArbiterError("mine");
    expect(fromConnect(error, AT)).toBe(error);
  });
  test("credentials that a proxy refused", () =>
    expect(fromConnect(failed(Code.Unauthenticated, "who?"), AT)).toBeInstanceOf(Unauthenticated));
  test("the names of the codes are gRPC's", () => {
    expect([Code.DeadlineExceeded, Code.Canceled, 0, 99].map(codeName)).toEqual([
      "DEADLINE_EXCEEDED",
      "CANCELLED",
      "OK",
      "CODE_99",
    ]);
  });
});

describe("a failure in a session", () => {
  const reasons = Object.entries(ErrorReason).filter(([, number]) => typeof number === "number" && number !== 0);

  test.each(reasons)("%s has a class of its own", (name, number) => {
    const failure = create(FailureSchema, { code: Code.Aborted, message: "no", reason: Number(number) });
    const error = fromFailure(failure, AT);
    expect(error).toBeInstanceOf(BY_REASON[name]);
    expect(error.constructor).not.toBe(ArbiterError);
    expect(error).toMatchObject({ name: error.constructor.name, reason: name, message: "no", code: "ABORTED" });
  });
  test("no two reasons share a class", () => expect(new Set(Object.values(BY_REASON)).size).toBe(reasons.length));
  test("it carries the facts", () => {
    const failure = create(FailureSchema, {
      code: Code.InvalidArgument,
      reason: ErrorReason.INVALID_REQUEST,
      metadata: { a: "b" },
      retryAfter: { seconds: 2n },
      violations: [{ field: "acquire.priority", description: "too high" }],
    });
    expect(fromFailure(failure, AT)).toMatchObject({
      metadata: { a: "b" },
      retryAfterMs: 2_000,
      violations: [{ field: "acquire.priority", description: "too high" }],
      message: "the call ended INVALID_ARGUMENT (acquire.priority: too high)",
    });
  });
  test("a reason that is not known yet stays", () =>
    expect(fromFailure(create(FailureSchema, { code: Code.Aborted, reason: 99 as ErrorReason }), AT)).toMatchObject({
      name: "ArbiterError",
      reason: "UNRECOGNIZED_99",
    }));
});
