/** The arbiter is killed, and comes back: who waits and who holds is back, too. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ArbiterUnavailable, GpuArbiterClient, type Lease, type Queued } from "../src/index.js";
import { timing } from "../src/timing.js";
import { Arbiterd } from "./support/arbiterd.js";
import { keptLog, leftAt, nothingLeftAt } from "./support/looking.js";

let arbiter: Arbiterd;
let client: GpuArbiterClient;
const log = keptLog();
beforeAll(async () => {
  // On a busy machine an arbiter may need longer to be back than holders have patience.
  Object.assign(timing, { disconnectGraceMs: 20_000, releaseMs: 20_000, outageMs: 20_000 });
  const policies = "policies.TRAIN={max_hold: 1h, max_wait: 30s}";
  arbiter = await Arbiterd.start(policies, "cooldown=0s", "shutdown_grace=200ms");
});
afterAll(() => arbiter[Symbol.asyncDispose]());
beforeEach(async () => {
  await nothingLeftAt(arbiter.address);
  client = new GpuArbiterClient({ address: arbiter.address, clientId: "worker", logger: log });
  return () => client.close();
});

describe("killed while a lease is held", () => {
  test("the lease is uncertain, and then the same as before", async () => {
    const lease = await client.lease("TRAIN");
    const { leaseId, fencingToken } = lease;
    await arbiter.kill();
    await expect.poll(() => lease.uncertain).toBe(true);
    lease.check();
    await arbiter.start();
    await expect.poll(() => lease.uncertain).toBe(false);
    expect(lease).toMatchObject({ lost: false, leaseId, fencingToken });
    expect(await leftAt(arbiter.address)).toEqual({ leases: 1, waiting: 0 });
    expect(await lease.release()).toMatchObject({ reason: "RELEASED", alreadyEnded: false });
    await nothingLeftAt(arbiter.address);
  });

  test("leases of every kind are back, over one new line", async () => {
    const shared = { memory: "100MiB", shared: true } as const;
    const leases = await Promise.all([
      ...Array.from({ length: 20 }, () => client.lease("TRAIN", shared)),
      client.lease("TRAIN", { ...shared, ttl: "20s" }),
      client.lease("TRAIN", { ...shared, ttl: "9s", detached: true }),
    ]);
    expect(leases.filter((lease) => lease.detached)).toHaveLength(1);
    await arbiter.kill();
    // The detached one has no line; it is uncertain when a renewal fails.
    await expect.poll(() => leases.every((lease) => lease.uncertain)).toBe(true);
    await arbiter.start();
    await expect.poll(() => leases.some((lease) => lease.uncertain)).toBe(false);
    expect(leases.filter((lease) => lease.lost)).toEqual([]);
    expect(await leftAt(arbiter.address)).toEqual({ leases: 22, waiting: 0 });
    const detached = leases.at(-1);
    const before = detached?.ttlRemainingMs ?? 0;
    await expect.poll(() => detached?.ttlRemainingMs, { interval: 5 }).toBeGreaterThan(before);
    expect(await Promise.all(leases.map((lease) => lease.release()))).toHaveLength(22);
    await nothingLeftAt(arbiter.address);
  });

  test("a lease that the arbiter does not know any more is lost", async () => {
    const lease = await client.lease("TRAIN");
    await arbiter.restart("another-state");
    await expect.poll(() => lease.lost).toBe(true);
    expect(lease.lostReason).toBe("NOT_RECOVERED");
    await nothingLeftAt(arbiter.address);
  });

  test("a release in the middle of it goes through once it is back", async () => {
    const lease = await client.lease("TRAIN");
    await arbiter.kill();
    const releasing = lease.release({ result: "OK" });
    await arbiter.start();
    expect(await releasing).toMatchObject({ reason: "RELEASED", alreadyEnded: false });
    await nothingLeftAt(arbiter.address);
  });
});

test("an arbiter that stays away takes the lease with it, after the time it keeps one", async () => {
  const lost: Lease[] = [];
  const lease = await client.lease("TRAIN", { ttl: "900ms", onLost: (each) => lost.push(each) });
  await arbiter.kill();
  await expect.poll(() => lost).toEqual([lease]);
  expect(lease).toMatchObject({ lostReason: "TTL_EXPIRED", uncertain: false });
  expect(lease.signal.aborted).toBe(true);
  await expect(lease.release(), "nobody takes it").rejects.toBeInstanceOf(ArbiterUnavailable);
  await arbiter.start("a-state-of-its-own");
});

describe("killed while a request waits", () => {
  test("it is asked again by the same requestId, and granted", async () => {
    const first = await client.lease("TRAIN", { ttl: "20s" });
    const places: Queued[] = [];
    const asking = client.lease("TRAIN", { onQueued: (queued) => places.push(queued) });
    await expect.poll(() => places.length).toBeGreaterThan(0);
    await arbiter.restart();
    const before = places.length;
    await expect.poll(() => places.length).toBeGreaterThan(before);
    expect(new Set(places.map((queued) => queued.requestId)).size).toBe(1);
    await expect.poll(() => first.uncertain).toBe(false);
    await first.release();
    const second = await asking;
    expect(second.requestId).toBe(places[0]?.requestId);
    await second.release();
    await nothingLeftAt(arbiter.address);
  });

  test("it gives up when its maxWait is over and nobody is back", async () => {
    const first = await client.lease("TRAIN");
    const places: Queued[] = [];
    const asking = client.lease("TRAIN", { maxWait: "1s", onQueued: (queued) => places.push(queued) });
    const failing = expect(asking).rejects.toBeInstanceOf(ArbiterUnavailable);
    await expect.poll(() => places.length).toBeGreaterThan(0);
    await arbiter.kill();
    await failing;
    await arbiter.start();
    await first.release();
  });
});

test("over a Unix socket, who holds and who waits is back, too", async () => {
  await using local = new GpuArbiterClient({ address: arbiter.socket, clientId: "local", logger: log });
  const places: Queued[] = [];
  const lease = await local.lease("TRAIN", { ttl: "20s" });
  const asking = local.lease("TRAIN", { onQueued: (queued) => places.push(queued) });
  await expect.poll(() => places.length).toBe(1);
  await arbiter.restart();
  await expect.poll(() => places.length).toBe(2);
  await expect.poll(() => lease.uncertain).toBe(false);
  expect(await lease.release()).toMatchObject({ reason: "RELEASED", alreadyEnded: false });
  await (await asking).release();
  await nothingLeftAt(arbiter.address);
});

test("asked to stop, the arbiter ends in order, and leases are joined when it is back", async () => {
  const lease = await client.lease("TRAIN", { ttl: "20s" });
  const places: Queued[] = [];
  const asking = client.lease("TRAIN", { onQueued: (queued) => places.push(queued) });
  await expect.poll(() => places.length).toBeGreaterThan(0);
  arbiter.signal("SIGTERM");
  await arbiter.kill("SIGTERM");
  await arbiter.start();
  await expect.poll(() => lease.uncertain).toBe(false);
  expect(lease.lost).toBe(false);
  await lease.release();
  await (await asking).release();
  await nothingLeftAt(arbiter.address);
});
