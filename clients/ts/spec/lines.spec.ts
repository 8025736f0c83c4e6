/** The line to the arbiter goes bad beneath requests and leases. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ArbiterUnavailable, GpuArbiterClient, type Queued } from "../src/index.js";
import { Arbiterd } from "./support/arbiterd.js";
import { BadLine } from "./support/bad-line.js";
import { keptLog, leftAt, nothingLeftAt } from "./support/looking.js";

let arbiter: Arbiterd;
let line: BadLine;
let client: GpuArbiterClient;
const log = keptLog();
beforeAll(async () => {
  arbiter = await Arbiterd.start("policies.TRAIN={max_hold: 1h, max_wait: 30s}", "cooldown=0s");
});
afterAll(() => arbiter[Symbol.asyncDispose]());
beforeEach(async () => {
  await nothingLeftAt(arbiter.address);
  line = await BadLine.before(arbiter.address);
  client = new GpuArbiterClient({ address: line.address, clientId: "worker", logger: log });
  return async () => {
    await client.close();
    await line[Symbol.asyncDispose]();
  };
});

const breaks: ReadonlyArray<readonly [string, () => void | Promise<void>]> = [
  ["cut", () => line.cut()],
  ["reset", () => line.reset()],
  [
    "silent",
    async () => {
      line.silence();
      // Until it is noticed, what is new would be lost, too.
      await expect.poll(() => log.lines.some((each) => each.includes("broke"))).toBe(true);
      await line.heal();
    },
  ],
];

describe.each(breaks)("%s", (_name, goBad) => {
  beforeEach(() => void log.lines.splice(0));

  test("a lease is joined again", async () => {
    const lease = await client.lease("TRAIN");
    await goBad();
    await expect.poll(() => line.connections).toBeGreaterThan(1);
    await expect.poll(() => log.lines.some((each) => each.includes("joined again"))).toBe(true);
    expect(lease).toMatchObject({ lost: false, uncertain: false });
    expect(await leftAt(arbiter.address)).toEqual({ leases: 1, waiting: 0 });
    expect(await lease.release()).toMatchObject({ reason: "RELEASED", alreadyEnded: false });
  });

  test("a request keeps its place, and is granted", async () => {
    const first = await client.lease("TRAIN", { ttl: "20s" });
    const places: Queued[] = [];
    const asking = client.lease("TRAIN", { onQueued: (queued) => places.push(queued) });
    await expect.poll(() => places.length).toBe(1);
    await goBad();
    await expect.poll(() => places.length).toBe(2);
    expect(places[1]).toMatchObject({ requestId: places[0]?.requestId, position: 1 });
    await first.release();
    await (await asking).release();
  });
});

test("wherever an answer is cut, there is one lease in the end", async () => {
  const kinds = new Set<string>();
  for (const bytes of [1, 9, 40, 70, 100, 130, 200, 300, 450]) {
    line.cutAfterDown(bytes);
    const before = line.connections;
    const asking = client.lease("TRAIN").then(
      (lease) => lease,
      (error: unknown) => error,
    );
    await expect.poll(() => line.connections).toBeGreaterThan(before);
    await line.heal();
    const lease = await asking;
    if (lease instanceof Error) {
      // Cut before the line stood: the request was never sent.
      expect(lease).toMatchObject({ name: "ArbiterUnavailable", mayHaveArrived: false });
      kinds.add("never sent");
    } else {
      expect(await leftAt(arbiter.address)).toEqual({ leases: 1, waiting: 0 });
      await (lease as Awaited<ReturnType<typeof client.lease>>).release();
      kinds.add("asked again");
    }
    await nothingLeftAt(arbiter.address);
    // A new line for the next one.
    line.cut();
  }
  expect(kinds).toEqual(new Set(["never sent", "asked again"]));
});

test("a line that is refused for a while is no loss", async () => {
  const lease = await client.lease("TRAIN");
  line.refuse();
  line.reset();
  await expect.poll(() => lease.uncertain).toBe(true);
  await expect(client.lease("TRAIN"), "a new request fails at once").rejects.toMatchObject({
    name: "ArbiterUnavailable",
    mayHaveArrived: false,
  });
  await line.heal();
  await expect.poll(() => lease.uncertain).toBe(false);
  expect(lease.lost).toBe(false);
  await lease.release();
});

test("a watch ends when its line does", async () => {
  const watching = (async () => {
    for await (const state of client.watch()) {
      expect(state.leases).toEqual([]);
      line.reset();
    }
  })();
  await expect(watching).rejects.toBeInstanceOf(ArbiterUnavailable);
});

test("somebody else at the address", async () => {
  await using lost = new GpuArbiterClient({ address: arbiter.http });
  for (const call of [() => lost.acquire("TRAIN"), () => lost.snapshot()]) {
    await expect(call()).rejects.toMatchObject({
      name: "ArbiterUnavailable",
      message: `the arbiter at ${arbiter.http} cannot be reached: what answers there does not speak gRPC; is this its port for HTTP?`,
    });
  }
});

test("nobody at the address", async () => {
  line.refuse();
  for (const call of [() => client.acquire("TRAIN"), () => client.snapshot(), () => client.checkFence("0", 1n)]) {
    await expect(call()).rejects.toMatchObject({
      name: "ArbiterUnavailable",
      code: "UNAVAILABLE",
      message: expect.stringContaining(`the arbiter at ${line.address} cannot be reached: connect ECONNREFUSED`),
    });
  }
});
