/** Given up at each stage: nothing is left at the arbiter. */
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { GpuArbiterClient } from "../src/index.js";
import { timing } from "../src/timing.js";
import { Arbiterd } from "./support/arbiterd.js";
import { BadLine } from "./support/bad-line.js";
import { aborted, keptLog, leftAt, nothingLeftAt } from "./support/looking.js";
import { until } from "./support/until.js";

let arbiter: Arbiterd;
let client: GpuArbiterClient;
beforeAll(async () => {
  arbiter = await Arbiterd.start("policies.TRAIN={max_hold: 1h, max_wait: 30s, disconnect_grace: 1h}", "cooldown=0s");
});
afterAll(() => arbiter[Symbol.asyncDispose]());
beforeEach(async () => {
  await nothingLeftAt(arbiter.address);
  client = new GpuArbiterClient({ address: arbiter.address, clientId: "worker" });
  return () => client.close();
});

test("before it is asked", async () => {
  const never = () => expect.unreachable();
  await expect(client.acquire("TRAIN", { signal: AbortSignal.abort("no") })).rejects.toBe("no");
  await expect(client.withGpuLease("TRAIN", never, { signal: AbortSignal.abort("no") })).rejects.toBe("no");
  await expect(client.snapshot({ signal: AbortSignal.abort("no") })).rejects.toBe("no");
  const signal = AbortSignal.abort("no");
  const target = { leaseId: "x", signal };
  for (const call of [
    () => client.release(target),
    () => client.renew(target),
    () => client.resize(target),
    () => client.checkFence("gpu:0", 1n, { signal }),
    () => client.reportWork("TRAIN", {}, { signal }),
    () => client.watch({ signal })[Symbol.asyncIterator]().next(),
  ]) {
    await expect(call()).rejects.toBe("no");
  }
  await nothingLeftAt(arbiter.address);
});

test("at any moment while it is asked", async () => {
  // A request on a fresh line takes a few milliseconds; each turn gives up a little later.
  for (let delay = 0; delay < 12; delay += 0.5) {
    await using fresh = new GpuArbiterClient({ address: arbiter.address, clientId: "worker" });
    const control = new AbortController();
    const began = performance.now();
    const asking = fresh.lease("TRAIN", { signal: control.signal }).then(
      (lease) => lease.release(),
      (reason: unknown) => expect(reason).toBe("enough"),
    );
    while (performance.now() - began < delay) {
      await new Promise(setImmediate);
    }
    control.abort("enough");
    await asking;
    await nothingLeftAt(arbiter.address, 1_000);
  }
});

test("while it waits", async () => {
  await using first = await client.lease("TRAIN");
  const control = new AbortController();
  const asking = client.acquire("TRAIN", { signal: control.signal, onQueued: () => control.abort("enough") });
  await expect(asking).rejects.toBe("enough");
  expect(await leftAt(arbiter.address)).toEqual({ leases: 1, waiting: 0 });
  first.check();
});

test("while it waits on a line that broke", async () => {
  await using line = await BadLine.before(arbiter.address);
  await using behind = new GpuArbiterClient({ address: line.address, clientId: "worker" });
  await using _first = await client.lease("TRAIN");
  const control = new AbortController();
  const asking = behind.acquire("TRAIN", {
    signal: control.signal,
    onQueued: () => {
      line.reset();
      // In the pause before it is asked again.
      setTimeout(() => control.abort("enough"), 30);
    },
  });
  await expect(asking).rejects.toBe("enough");
  expect(await leftAt(arbiter.address)).toEqual({ leases: 1, waiting: 0 });
});

test("while the arbiter is out of reach: as soon as it is back", async () => {
  await using line = await BadLine.before(arbiter.address);
  await using behind = new GpuArbiterClient({ address: line.address, clientId: "worker" });
  await using _first = await client.lease("TRAIN");
  const control = new AbortController();
  const asking = behind.acquire("TRAIN", {
    ttl: "30s",
    signal: control.signal,
    onQueued: () => {
      line.refuse();
      line.reset();
      control.abort("enough");
      setTimeout(() => void line.heal(), 300);
    },
  });
  await expect(asking).rejects.toBe("enough");
  await until(async () => (await leftAt(arbiter.address)).waiting === 0, "the request to be taken back");
});

test("while the work goes on", async () => {
  const control = new AbortController();
  let seen: unknown;
  const working = client.withGpuLease(
    "TRAIN",
    async (lease) => {
      control.abort("enough");
      await aborted(lease.signal);
      seen = lease.signal.reason;
      lease.signal.throwIfAborted();
    },
    { signal: control.signal },
  );
  await expect(working).rejects.toBe("enough");
  expect(seen).toBe("enough");
  await nothingLeftAt(arbiter.address);
});

test("while it is released, the release goes on", async () => {
  const lease = await client.lease("TRAIN");
  const control = new AbortController();
  const releasing = lease.release(undefined, { signal: control.signal });
  control.abort("enough");
  await expect(releasing).rejects.toBe("enough");
  await nothingLeftAt(arbiter.address);
  expect(lease.lost).toBe(false);
});

test("one signal may stand for many requests, without a warning of Node's", async () => {
  const warnings: Error[] = [];
  const warned = (warning: Error) => void warnings.push(warning);
  process.on("warning", warned);
  const { signal } = new AbortController();
  const work = () => client.withGpuLease("TRAIN", () => 1, { shared: true, memory: "1MiB", signal });
  await Promise.all(Array.from({ length: 20 }, work));
  await new Promise(setImmediate);
  process.off("warning", warned);
  expect(warnings).toEqual([]);
});

test("by closing the client, whatever it was doing", async () => {
  await using behind = new GpuArbiterClient({ address: arbiter.address, clientId: "other" });
  const held = await behind.lease("TRAIN");
  let queued = () => {};
  const waits = new Promise<void>((resolve) => {
    queued = resolve;
  });
  const asking = expect(behind.lease("TRAIN", { onQueued: () => queued() })).rejects.toThrow("this client is closed");
  await waits;
  const looking = async () => {
    for await (const state of behind.watch()) {
      expect(state.leases).toHaveLength(1);
    }
  };
  const watching = expect(looking()).rejects.toThrow("this client is closed");
  await behind.close();
  await asking;
  await watching;
  await expect(behind.snapshot()).rejects.toThrow("this client is closed");
  expect(await leftAt(arbiter.address)).toEqual({ leases: 0, waiting: 0 });
  expect(held).toMatchObject({ lost: false, released: { reason: "RELEASED" } });
  await expect(behind.lease("TRAIN")).rejects.toThrow("this client is closed");
});

test("by leaving its scope", async () => {
  const thrown = await (async () => {
    await using lease = await client.lease("TRAIN");
    lease.check();
    throw new Error("boom");
  })().catch((error: unknown) => error);
  expect(thrown).toMatchObject({ message: "boom" });
  await nothingLeftAt(arbiter.address);
});

test("by closing the client of an arbiter that is frozen", async () => {
  timing.releaseMs = 300;
  const logger = keptLog();
  const frozen = new GpuArbiterClient({ address: arbiter.address, clientId: "other", logger });
  const lease = await frozen.lease("TRAIN");
  arbiter.signal("SIGSTOP");
  await frozen.close();
  arbiter.signal("SIGCONT");
  expect(logger.lines.at(-1)).toContain(`warn: lease ${lease.leaseId} could not be released, and ends by itself`);
});
