/** What comes of asking: granted, skipped, to the CPU; and how the work went is told. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  ConsistencyCheck,
  FallbackToCpu,
  GpuArbiterClient,
  type Lease,
  Skipped,
  sharedClient,
  withGpuLease,
} from "../src/index.js";
import { Arbiterd } from "./support/arbiterd.js";
import { keptLog, nothingLeftAt } from "./support/looking.js";

let arbiter: Arbiterd;
let client: GpuArbiterClient;
beforeAll(async () => {
  // Metrics name only the task types that have a policy.
  const policies = "policies={ASR: {}, NMT: {}, TTS: {}, REPAIR: {busy_policy: SKIP, max_wait: 50ms}}";
  arbiter = await Arbiterd.start(policies, "cooldown=0s");
  client = new GpuArbiterClient({ address: arbiter.address, clientId: "worker" });
});
beforeEach(() => nothingLeftAt(arbiter.address));
afterAll(async () => {
  await client.close();
  await arbiter[Symbol.asyncDispose]();
});

/** How much work of a task was reported so. */
const reported = (task: string, device: string, result: string) =>
  arbiter.metric("gpu_arbiter_work_total", `task="${task}"`, `device="${device}"`, `result="${result}"`);

describe("while another one holds the GPU", () => {
  let holder: Lease;
  beforeEach(async () => {
    holder = await client.lease("ASR");
    return () => holder.release();
  });

  test("a request that does not wait is skipped, and told why", async () => {
    const acquired = await client.acquire("REPAIR");
    expect(acquired.kind).toBe("skipped");
    if (acquired.kind === "skipped") {
      expect(acquired.decline).toBeInstanceOf(Skipped);
      expect(acquired.decline).toMatchObject({ reason: "TIMEOUT", blockers: [{ leaseId: holder.leaseId }] });
      expect(acquired.decline.waitedMs).toBeGreaterThanOrEqual(50);
    }
    await expect(client.lease("REPAIR"), "asked for as a lease, it is thrown").rejects.toBeInstanceOf(Skipped);
    const never = () => expect.unreachable();
    expect(await client.withGpuLease("REPAIR", never)).toMatchObject({ kind: "skipped" });
  });

  test("a request that can do without a GPU is done on the CPU, and that is reported", async () => {
    const options = { busyPolicy: "FALLBACK_CPU", maxWait: 0, onCpu: () => "by hand" } as const;
    const outcome = await client.withGpuLease("NMT", () => "by GPU", options);
    expect(outcome).toMatchObject({ kind: "fallbackToCpu", value: "by hand", decline: { reason: "GPU_BUSY" } });
    expect(await reported("NMT", "cpu", "ok")).toBe(1);
    const failing = client.withGpuLease("NMT", () => 0, { ...options, onCpu: () => Promise.reject(new Error("no")) });
    await expect(failing).rejects.toThrow("no");
    expect(await reported("NMT", "cpu", "failed")).toBe(1);
    const without = await client.withGpuLease("NMT", () => 0, { busyPolicy: "FALLBACK_CPU", maxWait: 0 });
    expect(without).toMatchObject({ kind: "fallbackToCpu", value: undefined });
    await expect(client.lease("NMT", { busyPolicy: "FALLBACK_CPU", maxWait: 0 })).rejects.toBeInstanceOf(FallbackToCpu);
  });
});

describe("work under a lease", () => {
  const under = (work: (lease: Lease) => unknown, options = {}) => client.withGpuLease("ASR", work, options);
  const compared = (
    work: () => number,
    onCpu: (() => Promise<number>) | undefined,
    consistency: ConsistencyCheck<number, number>,
  ) => client.withGpuLease("ASR", work, { onCpu, consistency });

  test("comes to what it returns, and the lease is over", async () => {
    const before = await reported("ASR", "gpu", "ok");
    const outcome = await under((lease) => lease.visibleDevices);
    expect(outcome.kind).toBe("granted");
    if (outcome.kind === "granted") {
      expect(outcome.value).toBe(outcome.lease.visibleDevices);
      expect(await outcome.lease.release()).toMatchObject({ reason: "RELEASED", alreadyEnded: false });
    }
    await nothingLeftAt(arbiter.address);
    expect(await reported("ASR", "gpu", "ok")).toBe(before + 1);
  });

  test("throws what it throws", async () => {
    class OutOfMemoryError extends Error {}
    const boom = new Error("boom");
    for (const [error, result] of [
      [boom, "failed"],
      [new OutOfMemoryError("too much"), "out_of_memory"],
      [AbortSignal.abort().reason, "cancelled"],
    ] as const) {
      await expect(under(() => Promise.reject(error))).rejects.toBe(error);
      await expect(
        under(() => {
          throw error;
        }),
      ).rejects.toBe(error);
      await nothingLeftAt(arbiter.address);
      await expect.poll(() => reported("ASR", "gpu", result)).toBe(2);
    }
  });

  test("says what it belongs to, in either place", async () => {
    const context = { stage: "asr", sessionId: "s" };
    const work = (lease: Lease) => lease.message?.context;
    const outcome = await client.withGpuLease("ASR", work, { jobId: "j", utteranceIndex: 0, stage: "no", context });
    expect(outcome).toMatchObject({ value: { jobId: "j", utteranceIndex: 0n, stage: "asr", sessionId: "s" } });
    expect(await client.withGpuLease("ASR", work)).toMatchObject({ kind: "granted" });
  });

  test("tells what it wants to tell", async () => {
    await client.withGpuLease("TTS", (lease) => lease.report({ result: "FAILED", workItems: 7 }));
    await expect.poll(() => reported("TTS", "gpu", "failed")).toBe(1);
    await expect(under((lease) => lease.report({ workItems: -1 }))).rejects.toThrow("workItems is -1");
    await nothingLeftAt(arbiter.address);
  });

  test("is done on the CPU as well, if a check is to look at it", async () => {
    let looks = 0;
    const check = new ConsistencyCheck<number, number>({ rate: 1, logger: keptLog() });
    const onCpu = async () => {
      // The GPU was given back before.
      await nothingLeftAt(arbiter.address);
      looks += 1;
      return looks;
    };
    const outcomes = [await compared(() => 1, onCpu, check), await compared(() => 1, onCpu, check)];
    expect(outcomes).toMatchObject([{ value: 1 }, { value: 1 }]);
    expect(check.counts).toEqual({ checked: 2, matched: 1, mismatched: 1, failed: 0 });
    await expect(compared(() => 1, undefined, check)).rejects.toThrow("consistency needs onCpu");
  });

  test("may release by itself", async () => {
    const outcome = await under((lease) => lease.release());
    expect(outcome).toMatchObject({ kind: "granted", value: { reason: "RELEASED" } });
  });

  test("is reached the shortest way, by the environment", async () => {
    process.env["GPU_ARBITER_ADDRESS"] = arbiter.address;
    try {
      expect(await withGpuLease("ASR", (lease) => lease.taskType)).toMatchObject({ kind: "granted", value: "ASR" });
      expect(sharedClient().address).toBe(arbiter.address);
      expect(await withGpuLease("ASR", (lease) => lease.message?.holder?.clientId, { client })).toMatchObject({
        value: "worker",
      });
    } finally {
      delete process.env["GPU_ARBITER_ADDRESS"];
      await sharedClient().close();
    }
  });
});

test("a lease can be changed, and by its id from elsewhere", async () => {
  await using lease = await client.lease("ASR", { memory: "6GiB" });
  await lease.resize({ memory: "4GiB", shared: true });
  expect(lease).toMatchObject({ sharing: "SHARED", gpus: [{ committedBytes: 4 * 2 ** 30 }] });
  await lease.renew({ extendHold: "100s" });
  expect(lease.holdRemainingMs).toBeGreaterThan(90_000);
  expect(lease.holdRemainingMs).toBeLessThanOrEqual(100_000);
  await using elsewhere = new GpuArbiterClient({ address: arbiter.address, clientId: "worker" });
  const { leaseId, fencingToken } = lease;
  const { holdRemainingMs, ttlRemainingMs, pendingYield } = await elsewhere.renew({ leaseId, extendHold: "50s" });
  expect(holdRemainingMs).toBeGreaterThan(40_000);
  expect([ttlRemainingMs, pendingYield]).toEqual([undefined, undefined]);
  expect(await elsewhere.resize({ leaseId, fencingToken, memory: "5GiB" })).toMatchObject({ leaseId });
  expect(await elsewhere.release({ leaseId, fencingToken, report: { result: "OK" } })).toMatchObject({
    reason: "RELEASED",
    alreadyEnded: false,
  });
  expect(await elsewhere.release({ leaseId })).toMatchObject({ alreadyEnded: true });
});

test("a watch shows the state as it changes, until it is given up", async () => {
  const control = new AbortController();
  const seen: number[] = [];
  const watching = (async () => {
    for await (const state of client.watch({ minInterval: "50ms", signal: control.signal })) {
      seen.push(state.leases.length);
      if (seen.length === 1) {
        void client.withGpuLease("ASR", () => new Promise((resolve) => setTimeout(resolve, 200)));
      }
      if (seen.includes(1) && seen.at(-1) === 0) {
        control.abort("enough");
      }
    }
  })();
  await expect(watching).rejects.toBe("enough");
  expect(seen[0]).toBe(0);
  expect(await client.snapshot({ gpus: ["0"], processes: true, maxTickets: 1 })).toMatchObject({
    gpus: [{ key: "gpu:0" }],
  });
});
