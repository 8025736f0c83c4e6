/** How programs end, and what becomes of their leases. */
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { GpuArbiterClient } from "../src/index.js";
import { EventType } from "../src/v1.js";
import { Arbiterd } from "./support/arbiterd.js";
import { eventsOf, leftAt, nothingLeftAt } from "./support/looking.js";
import { Program } from "./support/program.js";
import { until } from "./support/until.js";

let arbiter: Arbiterd;
beforeAll(async () => {
  const policies = "policies.ASR={max_hold: 1h, max_wait: 30s, disconnect_grace: 1h}";
  arbiter = await Arbiterd.start(policies, "cooldown=0s");
});
afterAll(() => arbiter[Symbol.asyncDispose]());
beforeEach(() => nothingLeftAt(arbiter.address));

const start = (name: string, address = arbiter.address) =>
  new Program(`spec/programs/${name}.js`, { GPU_ARBITER_ADDRESS: address });

test("a client with nothing to do does not keep a program from ending", async () => {
  await using program = start("idle");
  expect(await program.end()).toBe(0);
  expect(program).toMatchObject({ said: ["0"], complained: [] });
});

test("closing the client takes back what waits, and gives back what is held", async () => {
  await using program = start("closing");
  expect(await program.end()).toBe(0);
  expect(program).toMatchObject({ said: ["this client is closed", "RELEASED"], complained: [] });
  expect(await leftAt(arbiter.address)).toEqual({ leases: 0, waiting: 0 });
});

test.each(["address", "socket"] as const)(
  "who waits and who holds keeps its program alive, and the lease of one that is killed ends with it (%s)",
  async (by) => {
    await using holding = start("holding", arbiter[by]);
    const [leaseId] = await holding.says(1);
    await using waiting = start("holding", arbiter[by]);
    await until(async () => (await leftAt(arbiter.address)).waiting === 1, "the second one to wait");
    await using client = new GpuArbiterClient({ address: arbiter.address });
    const [lease] = (await client.snapshot()).leases;
    expect(lease).toMatchObject({ leaseId, holder: { pid: holding.pid } });
    holding.kill("SIGKILL");
    // Long before the grace of its stream is over: its death is seen.
    await waiting.says(1);
    const ended = (await eventsOf(arbiter.address, EventType.ENDED)).filter((event) => event.leaseId === leaseId);
    expect(ended).toMatchObject([{ detail: expect.stringMatching(/died|dead|gone/i) }]);
    waiting.kill("SIGKILL");
    expect(await holding.end()).toBe("SIGKILL");
    expect(await waiting.end()).toBe("SIGKILL");
  },
);
