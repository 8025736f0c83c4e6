/** A lease from its request to its end, over TCP and over a Unix socket. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { GpuArbiterClient, type Queued } from "../src/index.js";
import { Arbiterd } from "./support/arbiterd.js";
import { until } from "./support/until.js";

let arbiter: Arbiterd;
beforeAll(async () => {
  arbiter = await Arbiterd.start("policies.ASR.max_wait=20s");
});
afterAll(() => arbiter[Symbol.asyncDispose]());

describe.each(["address", "socket"] as const)("by its %s", (by) => {
  test("a lease is granted, shown, and released", async () => {
    await using client = new GpuArbiterClient({ address: arbiter[by], clientId: "me" });
    const lease = await client.lease("ASR", { memory: "6GiB", context: { jobId: "job-1", utteranceIndex: 3 } });
    const [gpu] = lease.gpus;
    expect(lease).toMatchObject({ unmanaged: false, taskType: "ASR", sharing: "EXCLUSIVE", detached: false });
    expect(gpu).toMatchObject({ key: "gpu:0", index: 0, declaredBytes: 6 * 2 ** 30, committedBytes: 6 * 2 ** 30 });
    expect(lease.visibleDevices).toBe(gpu?.uuid);
    expect(lease.holdRemainingMs).toBeGreaterThan(0);
    const { leases } = await client.snapshot();
    expect(leases).toMatchObject([
      { leaseId: lease.leaseId, holder: { clientId: "me", pid: process.pid }, context: { jobId: "job-1" } },
    ]);
    expect(await client.checkFence("gpu:0", lease.fencingToken)).toEqual({
      current: true,
      newestToken: lease.fencingToken,
    });
    const released = await lease.release({ workItems: 3 });
    expect(released).toMatchObject({ reason: "RELEASED", alreadyEnded: false });
    expect(await lease.release(), "a second time answers the same").toBe(released);
    expect(() => lease.check()).toThrow("was released");
    expect(lease.lost).toBe(false);
    expect((await client.snapshot()).leases).toEqual([]);
  });

  test("who waits is told where it stands, and two clients take turns in order", async () => {
    await using one = new GpuArbiterClient({ address: arbiter[by], clientId: "one" });
    await using two = new GpuArbiterClient({ address: arbiter[by], clientId: "two" });
    const first = await one.lease("ASR");
    const order: string[] = [];
    const places: Queued[] = [];
    const waiting: Promise<void>[] = [];
    for (const [name, client] of [
      ["b", two],
      ["c", one],
      ["d", two],
    ] as const) {
      const position = waiting.length + 1;
      waiting.push(
        client
          .withGpuLease("ASR", () => void order.push(name), { onQueued: (queued) => places.push(queued) })
          .then((outcome) => expect(outcome.kind).toBe("granted")),
      );
      await until(() => places.some((queued) => queued.position === position), `${name} to be queued`);
    }
    expect(places[0]).toMatchObject({
      position: 1,
      reason: "GPU_BUSY",
      blockers: [{ leaseId: first.leaseId, clientId: "one" }],
    });
    expect(order).toEqual([]);
    await first.release();
    await Promise.all(waiting);
    expect(order).toEqual(["b", "c", "d"]);
  });
});
