import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { EndedSchema, RenewResponseSchema, YieldRequestedSchema } from "./gen/gpuarbiter/v1/gpu_arbiter_pb.js";
import { EndReason, LeaseSchema, YieldReason } from "./gen/gpuarbiter/v1/lease_pb.js";
import { grantMoment, LeaseRecord } from "./record.js";
import { timing } from "./timing.js";

const lease = (fields = {}) => create(LeaseSchema, { leaseId: "lease-1", ...fields });
const seconds = (value: number) => ({ seconds: BigInt(value) });
const released = {
  reason: "RELEASED",
  heldMs: 1,
  alreadyEnded: false,
  memoryVerdict: "",
  memoryPeakBytes: undefined,
} as const;

describe("from when a grant counts", () => {
  test.each([
    ["at once", { firstSent: 100, sent: 100, waited: 0, received: 101 }, 100],
    ["after a wait", { firstSent: 100, sent: 100, waited: 50, received: 160 }, 150],
    ["asked again, after a wait", { firstSent: 100, sent: 180, waited: 50, received: 200 }, 180],
    ["joined: its wait lies in the past", { firstSent: 100, sent: 110, waited: 500, received: 111 }, 110],
  ])("%s", (_name, { firstSent, sent, waited, received }, moment) =>
    expect(grantMoment(firstSent, sent, waited, received)).toBe(moment),
  );
});

describe("the time that is left", () => {
  test("counts from the moment of the grant, then from the sending of each renewal", () => {
    const record = new LeaseRecord(lease({ holdRemaining: seconds(8), ttlRemaining: seconds(3) }), 1_000);
    expect([record.holdDeadline, record.ttlDeadline]).toEqual([9_000, 4_000]);
    record.renewed(create(RenewResponseSchema, { ttlRemaining: seconds(3) }), 2_000);
    expect([record.holdDeadline, record.ttlDeadline]).toEqual([undefined, 5_000]);
    record.changed(lease({ holdRemaining: seconds(1) }), 3_000);
    expect([record.holdDeadline, record.ttlDeadline]).toEqual([4_000, undefined]);
  });
  test("without a line it is the grace from the break, or the ttl where there is one", () => {
    const bound = new LeaseRecord(lease(), 0);
    expect(bound.giveUpAt).toBeUndefined();
    expect([bound.broke(10), bound.broke(20)], "it breaks once").toEqual([true, false]);
    expect(bound.giveUpAt).toBe(10 + timing.disconnectGraceMs);
    expect(bound.uncertain).toBe(true);
    bound.mended();
    expect([bound.uncertain, bound.giveUpAt]).toEqual([false, undefined]);
    const renewed = new LeaseRecord(lease({ ttlRemaining: seconds(30) }), 0);
    renewed.broke(10);
    expect(renewed.giveUpAt).toBe(30_000);
  });
});

describe("it is announced once", () => {
  test("that it is lost", () => {
    const record = new LeaseRecord(lease(), 0);
    const ended = create(EndedSchema, { reason: EndReason.REVOKED, detail: "why" });
    expect([record.ended(ended), record.ended(ended), record.lose("DISCONNECTED", "")]).toEqual([true, false, false]);
    expect(record).toMatchObject({ lost: true, over: true, lostReason: "REVOKED", lostDetail: "why", presumed: false });
    expect(record.released).toMatchObject({ reason: "REVOKED", alreadyEnded: true });
    expect(record.broke(1)).toBe(false);
  });
  test("that the arbiter wants it back, unless it says more than before", () => {
    const record = new LeaseRecord(lease(), 0);
    const asks = (reason: YieldReason, grace?: number) =>
      record.yieldAsked(
        create(YieldRequestedSchema, { reason, ...(grace === undefined ? {} : { grace: seconds(grace) }) }),
      );
    expect(asks(YieldReason.PREEMPTED)).toBe(true);
    expect(asks(YieldReason.PREEMPTED)).toBe(false);
    expect(asks(YieldReason.PREEMPTED, 5), "a bound is news").toBe(true);
    expect(asks(YieldReason.PREEMPTED, 3), "less time left is none").toBe(false);
    expect(asks(YieldReason.OPERATOR)).toBe(true);
    expect(record.yieldRequest).toEqual({ reason: "OPERATOR", detail: "", graceMs: undefined });
    const pendingYield = create(YieldRequestedSchema, { reason: YieldReason.DRAINING });
    expect(record.renewed(create(RenewResponseSchema, { pendingYield }), 0), "also by a renewal").toBe(true);
  });
});

describe("after the holder gave it back", () => {
  test("nothing is lost, broken or asked any more", () => {
    const record = new LeaseRecord(lease(), 0);
    record.close();
    expect(record.ended(create(EndedSchema, { reason: EndReason.RELEASED }))).toBe(false);
    expect(record.lose("DISCONNECTED", "")).toBe(false);
    expect(record.broke(1)).toBe(false);
    expect(record.yieldAsked(create(YieldRequestedSchema))).toBe(false);
    expect([record.lost, record.released]).toEqual([false, undefined]);
  });
  test("the first answer stands", () => {
    const record = new LeaseRecord(lease(), 0);
    expect(record.gaveBack(released)).toBe(released);
    expect(record.gaveBack({ ...released, heldMs: 2 })).toBe(released);
  });
});
