import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { declineOf, nameOf, queuedOf, releasedOf } from "./answers.js";
import { FallbackToCpu, Skipped } from "./errors.js";
import {
  DeclinedSchema,
  EndedSchema,
  QueuedSchema,
  ReleaseResponseSchema,
} from "./gen/gpuarbiter/v1/gpu_arbiter_pb.js";
import { BusyPolicy, EndReason, MemoryVerdict, WaitReason } from "./gen/gpuarbiter/v1/lease_pb.js";

const blocker = { leaseId: "l", taskType: "ASR", clientId: "c", gpu: "gpu:0", held: { nanos: 5_000_000 } };

test("an enum's value by its name", () => {
  expect(nameOf(WaitReason, WaitReason.GPU_BUSY)).toBe("GPU_BUSY");
  expect(nameOf(WaitReason, 0)).toBe("");
  expect(nameOf(WaitReason, 99), "from an arbiter that is newer").toBe("UNRECOGNIZED_99");
});

test("a place in the queue", () => {
  const message = create(QueuedSchema, { requestId: "r", position: 2, reason: WaitReason.MEMORY, blockers: [blocker] });
  expect(queuedOf(message)).toEqual({
    requestId: "r",
    position: 2,
    queueLength: 0,
    reason: "MEMORY",
    detail: "",
    estimatedWaitMs: undefined,
    blockers: [{ leaseId: "l", taskType: "ASR", clientId: "c", gpu: "gpu:0", heldMs: 5 }],
  });
});

test("a decline is a value and an error at once", () => {
  const decline = declineOf(create(DeclinedSchema, { decision: BusyPolicy.SKIP, reason: WaitReason.GPU_BUSY }));
  expect(decline).toBeInstanceOf(Skipped);
  expect(decline).toMatchObject({ message: "no GPU could be had: GPU_BUSY", reason: "GPU_BUSY", waitedMs: 0 });
  const message = create(DeclinedSchema, {
    decision: BusyPolicy.FALLBACK_CPU,
    detail: "held by c",
    waited: { seconds: 1n },
    retryAfter: { seconds: 2n },
    blockers: [blocker],
  });
  const toCpu = declineOf(message);
  expect(toCpu).toBeInstanceOf(FallbackToCpu);
  expect(toCpu).toMatchObject({ name: "FallbackToCpu", message: "held by c", waitedMs: 1_000, retryAfterMs: 2_000 });
  expect(toCpu.blockers).toHaveLength(1);
});

test("how a lease ended, by either message", () => {
  expect(releasedOf(create(EndedSchema, { reason: EndReason.MAX_HOLD, held: { seconds: 8n } }))).toEqual({
    reason: "MAX_HOLD",
    heldMs: 8_000,
    alreadyEnded: true,
    memoryVerdict: "",
    memoryPeakBytes: undefined,
  });
  const response = { reason: EndReason.RELEASED, memoryVerdict: MemoryVerdict.UNDER, memoryPeakBytes: 7n };
  expect(releasedOf(create(ReleaseResponseSchema, response))).toMatchObject({
    alreadyEnded: false,
    memoryVerdict: "UNDER",
    memoryPeakBytes: 7,
  });
});
