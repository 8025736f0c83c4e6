/** Work that is over: the release is on its way, and nobody waits for its answer. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type ArbiterUnavailable, GpuArbiterClient, type Lease, LeaseLost } from "../src/index.js";
import { timing } from "../src/timing.js";
import { EventType } from "../src/v1.js";
import { Arbiterd } from "./support/arbiterd.js";
import { BadLine } from "./support/bad-line.js";
import { eventsOf, keptLog, nothingLeftAt } from "./support/looking.js";

let arbiter: Arbiterd;
let line: BadLine;
let client: GpuArbiterClient;
const log = keptLog();
const waits = { ...timing };
const NOW_OR_NEVER = { busyPolicy: "SKIP", maxWait: 0 } as const;
beforeAll(async () => {
  arbiter = await Arbiterd.start("policies.TRAIN={max_hold: 1h, max_wait: 30s}", "cooldown=0s");
});
afterAll(() => arbiter[Symbol.asyncDispose]());
beforeEach(async () => {
  await nothingLeftAt(arbiter.address);
  log.lines.length = 0;
  line = await BadLine.before(arbiter.address);
  client = new GpuArbiterClient({ address: line.address, clientId: "worker", logger: log });
  return async () => {
    Object.assign(timing, waits);
    await client.close();
    await line[Symbol.asyncDispose]();
  };
});

/** A lease whose work is over, in whose last moment something happens. */
async function leave(happening: () => void): Promise<Lease> {
  const lease = await client.lease("TRAIN");
  happening();
  await lease[Symbol.asyncDispose]();
  return lease;
}

describe("while the arbiter is frozen", () => {
  const freeze = () => arbiter.signal("SIGSTOP");
  const thaw = () => arbiter.signal("SIGCONT");

  test("the work is over, and the answer comes when it can", async () => {
    const lease = await leave(freeze);
    expect(lease).toMatchObject({ released: undefined, lost: false });
    expect(() => lease.check()).toThrow(LeaseLost);
    const releasing = lease.release();
    thaw();
    expect(await releasing).toMatchObject({ reason: "RELEASED", alreadyEnded: false });
    expect(lease.released).toBe(await releasing);
    expect(log.lines).toEqual([]);
  });

  test("closing the client waits for the answer", async () => {
    const lease = await leave(freeze);
    const closing = client.close();
    thaw();
    await closing;
    expect(lease.released).toMatchObject({ reason: "RELEASED", alreadyEnded: false });
  });

  test("a release that nobody takes is logged", async () => {
    timing.releaseMs = 300;
    const lease = await leave(freeze);
    await expect.poll(() => log.lines.join()).toContain(`lease ${lease.leaseId} could not be released, and ends by`);
    thaw();
    expect(lease.released).toBeUndefined();
  });
});

test("what is asked for next comes after it", async () => {
  for (let turn = 0; turn < 50; turn += 1) {
    expect(await client.withGpuLease("TRAIN", () => turn, NOW_OR_NEVER)).toMatchObject({ value: turn });
  }
});

test("after a break it is given back before anything is asked for", async () => {
  const lease = await leave(() => line.silence());
  line.refuse();
  line.reset();
  const nothingSent = () => client.checkFence("0", 1n).catch((error: ArbiterUnavailable) => !error.mayHaveArrived);
  await expect.poll(nothingSent).toBe(true);
  await line.heal();
  expect(await client.withGpuLease("TRAIN", () => 1, NOW_OR_NEVER)).toMatchObject({ kind: "granted" });
  expect(lease.released).toMatchObject({ reason: "RELEASED" });
  expect(await eventsOf(arbiter.address, EventType.ENDED)).toContainEqual(
    expect.objectContaining({ leaseId: lease.leaseId, detail: expect.stringContaining("RELEASED") }),
  );
});

test("what may not live any more is waited for", async () => {
  const lease = await client.lease("TRAIN", { ttl: "30s", detached: true });
  await lease[Symbol.asyncDispose]();
  expect(lease.released).toMatchObject({ reason: "RELEASED" });
});
