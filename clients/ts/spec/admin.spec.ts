/** What operators can do. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { GpuArbiterClient, InvalidRequest, UnknownGpu, UnknownLease, WaitTimeout } from "../src/index.js";
import { EventType } from "../src/v1.js";
import { Arbiterd } from "./support/arbiterd.js";

let arbiter: Arbiterd;
let client: GpuArbiterClient;
beforeAll(async () => {
  arbiter = await Arbiterd.start("policies.TRAIN={max_hold: 1h}", "cooldown=0s");
  client = new GpuArbiterClient({ address: arbiter.address, clientId: "operator" });
});
afterAll(async () => {
  await client.close();
  await arbiter[Symbol.asyncDispose]();
});

test("a GPU that is drained is granted to nobody, until it is resumed", async () => {
  const lease = await client.lease("TRAIN");
  expect(await client.admin.drain({ gpus: ["0"], reason: "a new driver", grace: "30s" })).toBe(1);
  await expect.poll(() => lease.yieldRequest).toMatchObject({ detail: expect.stringContaining("a new driver") });
  await lease.release();
  await expect(client.lease("TRAIN", { maxWait: 0 })).rejects.toBeInstanceOf(WaitTimeout);
  await client.admin.resume({ all: true });
  await (await client.lease("TRAIN")).release();
});

test("the configuration is changed as a whole, or not at all", async () => {
  const { revision, configYaml } = await client.admin.getConfig();
  expect(configYaml).toContain("queue_limit: 8");
  const tried = await client.admin.updateConfig("queue_limit: 9", { dryRun: true });
  expect(tried.configYaml).toContain("queue_limit: 9");
  const changed = await client.admin.updateConfig("queue_limit: 9", { revision });
  expect(changed.revision).toBeGreaterThan(revision);
  await expect(client.admin.updateConfig("queue_limit: 7", { revision })).rejects.toMatchObject({ code: "ABORTED" });
  await expect(client.admin.updateConfig("queue_limits: 7")).rejects.toBeInstanceOf(InvalidRequest);
});

test("what happened is told in order, and as it happens", async () => {
  const lease = await client.lease("TRAIN");
  const seen: EventType[] = [];
  let last = 0n;
  for await (const event of client.admin.events({ follow: true, since: new Date(Date.now() - 3_600_000) })) {
    if (event.leaseId === lease.leaseId) {
      seen.push(event.type);
      if (event.type === EventType.GRANTED) {
        await client.admin.revoke(lease.leaseId, { reason: "to be seen" });
      }
      if (event.type === EventType.ENDED) {
        last = event.sequence;
        break;
      }
    }
  }
  expect(seen).toEqual([EventType.GRANTED, EventType.ENDED]);
  await lease.release();
  const before = [];
  for await (const event of client.admin.events({ afterSequence: last - 2n, limit: 2 })) {
    before.push(event.sequence);
  }
  expect(before).toEqual([last - 1n, last]);
});

test("what cannot be is refused, and what is given up is given up", async () => {
  await expect(client.admin.revoke("nobody's")).rejects.toBeInstanceOf(UnknownLease);
  await expect(client.admin.drain({ gpus: ["gpu:7"] })).rejects.toBeInstanceOf(UnknownGpu);
  await expect(client.admin.drain({ gpus: [] })).rejects.toBeInstanceOf(InvalidRequest);
  await expect(client.admin.getConfig({ signal: AbortSignal.abort("no") })).rejects.toBe("no");
  const control = new AbortController();
  const following = (async () => {
    for await (const _event of client.admin.events({ follow: true, signal: control.signal })) {
      control.abort("enough");
    }
  })();
  await expect(following).rejects.toBe("enough");
});
