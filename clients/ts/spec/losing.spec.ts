/** The arbiter wants the GPU back, or takes it, while the work goes on. */
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { GpuArbiterClient, type Lease, LeaseLost, type YieldRequest } from "../src/index.js";
import { Arbiterd } from "./support/arbiterd.js";
import { aborted, adminOf, keptLog, nothingLeftAt } from "./support/looking.js";

let arbiter: Arbiterd;
let client: GpuArbiterClient;
const log = keptLog();
beforeAll(async () => {
  arbiter = await Arbiterd.start(
    "policies.SHORT={max_hold: 100ms, watchdog: {grace: 200ms, revoke: true}}",
    "policies.TRAIN={max_hold: 1h}",
    "cooldown=0s",
  );
  client = new GpuArbiterClient({ address: arbiter.address, clientId: "worker", logger: log });
});
beforeEach(() => nothingLeftAt(arbiter.address));
afterAll(async () => {
  await client.close();
  await arbiter[Symbol.asyncDispose]();
});

/** Work that goes on until its signal says that it must not. */
async function untilAborted(signal: AbortSignal): Promise<never> {
  await aborted(signal);
  throw signal.reason;
}

test("work that yields when it is asked ends the lease as YIELDED", async () => {
  const told: YieldRequest[] = [];
  const outcome = await client.withGpuLease(
    "TRAIN",
    async (lease) => {
      expect(lease.yieldSignal.aborted).toBe(false);
      await adminOf(arbiter.address).revoke(lease.leaseId, { grace: "30s", reason: "maintenance" });
      await aborted(lease.yieldSignal);
      expect(lease.signal.aborted, "it is still held").toBe(false);
      lease.check();
      return lease.yieldRequest;
    },
    { onYield: (request) => told.push(request) },
  );
  expect(outcome).toMatchObject({ kind: "granted", lease: { lost: false } });
  if (outcome.kind === "granted") {
    expect(await outcome.lease.release()).toMatchObject({ reason: "YIELDED", alreadyEnded: false });
    expect(outcome.value).toMatchObject({ reason: "OPERATOR", graceMs: 30_000 });
    expect(outcome.value?.detail).toContain("maintenance");
    expect(told).toEqual([outcome.value]);
    expect(outcome.lease.yieldSignal.reason).toBe(told[0]);
  }
});

test("a revoke stops the work by its signal, and tells whom it may concern", async () => {
  const lost: Lease[] = [];
  const working = client.withGpuLease(
    "TRAIN",
    async (lease) => {
      await adminOf(arbiter.address).revoke(lease.leaseId, { reason: "now" });
      await untilAborted(lease.signal);
    },
    { onLost: (lease) => lost.push(lease) },
  );
  const error = await working.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(LeaseLost);
  expect(error).toMatchObject({ reason: "OPERATOR" });
  const [lease] = lost;
  expect(lost).toHaveLength(1);
  expect(lease).toMatchObject({ lost: true, lostReason: "OPERATOR", uncertain: false });
  expect(lease?.released).toMatchObject({ reason: "OPERATOR", alreadyEnded: true });
  expect(() => lease?.check()).toThrow(LeaseLost);
  expect(log.lines.join("\n")).toContain(`warn: lease ${lease?.leaseId} is lost: OPERATOR`);
});

test("work past its max_hold is asked, and then loses its lease", async () => {
  const happened: string[] = [];
  const working = client.withGpuLease("SHORT", (lease) => untilAborted(lease.signal), {
    onYield: (request) => happened.push(request.reason),
    onLost: (lease) => happened.push(`lost by ${lease.lostReason}`),
  });
  await expect(working).rejects.toMatchObject({ name: "LeaseLost", reason: "MAX_HOLD" });
  await expect.poll(() => happened).toEqual(["MAX_HOLD", "lost by MAX_HOLD"]);
});

test("a callback that throws, or hangs, is logged and keeps nothing up", async () => {
  const happened: string[] = [];
  const working = client.withGpuLease("SHORT", (lease) => untilAborted(lease.signal), {
    onYield: () => new Promise(() => {}),
    onLost: () => {
      happened.push("told");
      throw new Error("a bug of the caller's");
    },
  });
  await expect(working).rejects.toBeInstanceOf(LeaseLost);
  await expect.poll(() => happened).toEqual(["told"]);
  await expect.poll(() => log.lines.join("\n")).toContain("error: onLost threw: Error: a bug of the caller's");
});

test("what was released by its id elsewhere is lost here", async () => {
  const lease = await client.lease("TRAIN");
  await using elsewhere = new GpuArbiterClient({ address: arbiter.address, clientId: "worker" });
  await elsewhere.release({ leaseId: lease.leaseId });
  await aborted(lease.signal);
  expect(lease.lostReason).toBe("RELEASED");
  await expect(lease.renew()).rejects.toBeInstanceOf(LeaseLost);
  await expect(lease.resize({ memory: "1GiB" })).rejects.toBeInstanceOf(LeaseLost);
  expect(await lease.release()).toMatchObject({ reason: "RELEASED", alreadyEnded: true });
});

test("a lease whose renewal is answered LEASE_ENDED is lost", async () => {
  const lease = await client.lease("TRAIN", { ttl: "30s", detached: true });
  await using elsewhere = new GpuArbiterClient({ address: arbiter.address, clientId: "worker" });
  await elsewhere.release({ leaseId: lease.leaseId });
  expect(lease.lost, "nobody has told it").toBe(false);
  await expect(lease.renew()).rejects.toMatchObject({ name: "LeaseEnded", reason: "LEASE_ENDED" });
  expect(lease).toMatchObject({ lost: true, lostReason: "RELEASED" });
  expect(lease.signal.reason).toBeInstanceOf(LeaseLost);
});
