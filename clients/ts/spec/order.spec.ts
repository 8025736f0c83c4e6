/** Who comes first, and who goes side by side. */
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { GpuArbiterClient, type LeaseOptions, WaitTimeout } from "../src/index.js";
import { Arbiterd } from "./support/arbiterd.js";
import { nothingLeftAt } from "./support/looking.js";

let arbiter: Arbiterd;
let client: GpuArbiterClient;
beforeAll(async () => {
  arbiter = await Arbiterd.start("gpus=sim:2x24GiB", "defaults={max_hold: 1h, max_wait: 30s}", "cooldown=0s");
  client = new GpuArbiterClient({ address: arbiter.address, clientId: "worker" });
});
beforeEach(() => nothingLeftAt(arbiter.address));
afterAll(async () => {
  await client.close();
  await arbiter[Symbol.asyncDispose]();
});

/** The order in which requests are granted that wait, one after the other in the queue, for what is held. */
async function order(requests: Readonly<Record<string, LeaseOptions>>): Promise<string[]> {
  const both = await client.lease("ASR", { count: 2 });
  const granted: string[] = [];
  const working: Promise<unknown>[] = [];
  for (const [name, options] of Object.entries(requests)) {
    await new Promise<void>((queued) => {
      const work = () => granted.push(name);
      working.push(client.withGpuLease("ASR", work, { count: 2, ...options, onQueued: () => queued() }));
    });
  }
  await both.release();
  await Promise.all(working);
  return granted;
}

test("the higher priority first, and who came first within it", async () => {
  const requests = { a: { priority: 10 }, b: { priority: 90 }, c: { priority: 90 }, d: { priority: 50 } };
  expect(await order(requests)).toEqual(["b", "c", "d", "a"]);
});

test("the lower index of a sequence first", async () => {
  const at = (index: number) => ({ sequence: { group: "session-1", index } });
  expect(await order({ third: at(3), first: at(1), second: at(2) })).toEqual(["first", "second", "third"]);
});

test("several GPUs all together, one that is named, and shared ones side by side", async () => {
  await using shared = await client.lease("ASR", { shared: true, memory: "10GiB", gpus: "gpu:1" });
  await using beside = await client.lease("NMT", { shared: true, memory: "10GiB", gpus: ["1"] });
  expect([shared, beside].map((lease) => lease.gpus.map((gpu) => gpu.key))).toEqual([["gpu:1"], ["gpu:1"]]);
  const full = client.lease("TTS", { shared: true, memory: "10GiB", gpus: "gpu:1", maxWait: 0 });
  await expect(full).rejects.toMatchObject({ metadata: { wait_reason: "MEMORY" } });
  await expect(client.lease("ASR", { count: 2, maxWait: 0 })).rejects.toBeInstanceOf(WaitTimeout);
  await shared.release();
  await beside.release();
  await using both = await client.lease("ASR", { count: 2 });
  expect(both.visibleDevices?.split(",")).toEqual(both.gpus.map((gpu) => gpu.uuid));
});
