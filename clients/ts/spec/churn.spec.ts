/** Many clients at once, which give up at any moment, over lines that are cut, through restarts of the arbiter. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { ArbiterUnavailable, GpuArbiterClient, type Lease } from "../src/index.js";
import { timing } from "../src/timing.js";
import { sleep } from "../src/waiting.js";
import { Arbiterd } from "./support/arbiterd.js";
import { BadLine } from "./support/bad-line.js";
import { dice } from "./support/dice.js";
import { keptLog, nothingLeftAt } from "./support/looking.js";
import { until } from "./support/until.js";

const ROUNDS = 25;

let arbiter: Arbiterd;
let line: BadLine;
beforeAll(async () => {
  // On a busy machine an arbiter may need longer to be back than holders have patience.
  Object.assign(timing, { disconnectGraceMs: 20_000, releaseMs: 20_000, outageMs: 20_000 });
  arbiter = await Arbiterd.start("policies.TRAIN={max_hold: 1h, max_wait: 60s}", "cooldown=0s");
  line = await BadLine.before(arbiter.address);
});
afterAll(async () => {
  await line[Symbol.asyncDispose]();
  await arbiter[Symbol.asyncDispose]();
});

test("one holder at a time, tokens that rise, and nothing left in the end", async () => {
  const seed = Date.now() % 100_000;
  const { next } = dice(seed);
  const tokens: bigint[] = [];
  const came: Record<string, number> = {};
  let inside: Lease | undefined;

  /** Alone on the GPU, for a moment. */
  const work = async (lease: Lease) => {
    expect(inside?.leaseId, "another one is inside").toBeUndefined();
    inside = lease;
    tokens.push(lease.fencingToken);
    try {
      await sleep(20 * next(), lease.signal);
    } finally {
      inside = undefined;
    }
  };

  const live = async (client: GpuArbiterClient) => {
    for (let round = 0; round < ROUNDS; round++) {
      const control = new AbortController();
      const timer = next() < 0.3 ? setTimeout(() => control.abort("enough"), 60 * next()) : undefined;
      const end = await client.withGpuLease("TRAIN", work, { ttl: "30s", signal: control.signal }).then(
        ({ kind }) => kind,
        (error: unknown) => error,
      );
      clearTimeout(timer);
      if (end instanceof ArbiterUnavailable) {
        // It found no arbiter: nothing was asked.
        await sleep(50);
      } else {
        expect(["granted", "enough"], `seed ${seed}: ${end}`).toContain(end);
      }
      const name = end instanceof Error ? end.name : String(end);
      came[name] = (came[name] ?? 0) + 1;
    }
  };

  const logger = keptLog();
  const clients = [arbiter.address, arbiter.socket, line.address, line.address].map(
    (address, index) => new GpuArbiterClient({ address, clientId: `client-${index}`, logger }),
  );
  let over = false;
  const harm = async () => {
    for (let turn = 0; !over; turn++) {
      await sleep(100 + 100 * next());
      const blow =
        turn === 3 || turn === 8 ? () => arbiter.restart() : next() < 0.5 ? () => line.cut() : () => line.reset();
      await blow();
    }
  };
  const harming = harm();
  await Promise.all(clients.map(live));
  over = true;
  await harming;

  expect(tokens).toEqual([...new Set(tokens)].sort((one, other) => (one < other ? -1 : 1)));
  expect(came["granted"]).toBeGreaterThan(ROUNDS / 2);
  expect(came["enough"]).toBeGreaterThan(0);
  expect(logger.lines.filter((each) => each.includes("is lost"))).toEqual([]);
  await until(() => inside === undefined);
  // A request that was given up while its line was broken waits out the arbiter's grace for whoever lost a line.
  await nothingLeftAt(arbiter.address, 15_000);
  await Promise.all(clients.map((client) => client.close()));
}, 60_000);
