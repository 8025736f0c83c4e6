/** Leases that live by their ttl alone. */
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { GpuArbiterClient } from "../src/index.js";
import { EventType } from "../src/v1.js";
import { Arbiterd } from "./support/arbiterd.js";
import { eventsOf, leftAt, nothingLeftAt } from "./support/looking.js";

let arbiter: Arbiterd;
beforeAll(async () => {
  arbiter = await Arbiterd.start("policies.TRAIN={max_hold: 1h, max_wait: 30s}", "cooldown=0s");
});
afterAll(() => arbiter[Symbol.asyncDispose]());
beforeEach(() => nothingLeftAt(arbiter.address));

const clientOf = () => new GpuArbiterClient({ address: arbiter.address, clientId: "trainer" });

test("renewed behind the program's back, it outlives its ttl, and the client not for longer than that", async () => {
  await using client = clientOf();
  const lease = await client.lease("TRAIN", { ttl: "900ms", detached: true });
  const renewals = async () =>
    (await eventsOf(arbiter.address, EventType.RENEWED)).filter((event) => event.leaseId === lease.leaseId).length;
  await expect.poll(renewals).toBeGreaterThan(4);
  lease.check();
  expect(lease.ttlRemainingMs).toBeGreaterThan(0);
  await client.close();
  expect(lease.lost, "it is left alone, not lost").toBe(false);
  expect(await leftAt(arbiter.address)).toEqual({ leases: 1, waiting: 0 });
  await nothingLeftAt(arbiter.address);
  const ended = await eventsOf(arbiter.address, EventType.ENDED);
  expect(ended.at(-1)).toMatchObject({ leaseId: lease.leaseId, detail: expect.stringMatching(/ttl/i) });
});

test("another process of the same name takes it over by its requestId", async () => {
  await using before = clientOf();
  const options = { requestId: "nightly", ttl: "30s", detached: true } as const;
  const lease = await before.lease("TRAIN", options);
  await before.close();
  await using after = clientOf();
  const again = await after.lease("TRAIN", options);
  expect(again).toMatchObject({ leaseId: lease.leaseId, fencingToken: lease.fencingToken, detached: true });
  expect(await again.release()).toMatchObject({ reason: "RELEASED", alreadyEnded: false });
  await nothingLeftAt(arbiter.address);
});
