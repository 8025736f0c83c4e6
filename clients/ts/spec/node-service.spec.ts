/** The service of docs/node-service.md, as it stands, over HTTP. */
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { GpuArbiterClient } from "../src/index.js";
import { Arbiterd } from "./support/arbiterd.js";
import { leftAt, nothingLeftAt } from "./support/looking.js";
import { Program } from "./support/program.js";
import { until } from "./support/until.js";

let arbiter: Arbiterd;
let other: GpuArbiterClient;
let service: Program;
let url = "";
beforeAll(async () => {
  arbiter = await Arbiterd.start(
    "policies.NMT.max_wait=300ms",
    "policies.TRAIN.max_hold=1h",
    "cooldown=0s",
    "recovery_grace=300ms",
  );
  other = new GpuArbiterClient({ address: arbiter.address, clientId: "trainer" });
  service = new Program("examples/node-service.js", { GPU_ARBITER_ADDRESS: arbiter.address, PORT: "0" });
  const [line] = await service.says(1);
  url = `http://127.0.0.1:${line?.split(" ").at(-1)}`;
});
beforeEach(() => nothingLeftAt(arbiter.address));
afterAll(async () => {
  await service[Symbol.asyncDispose]();
  await other.close();
  await arbiter[Symbol.asyncDispose]();
});

const post = (path: string, signal: AbortSignal | null = null) =>
  fetch(`${url}${path}`, { method: "POST", body: "hello", signal });

test("work on the GPU", async () => {
  for (const path of ["/transcribe", "/translate", "/repair"]) {
    const response = await post(path);
    expect([response.status, await response.json()]).toEqual([
      200,
      { result: expect.stringMatching(/^5 bytes on GPU-/) },
    ]);
  }
  expect((await fetch(`${url}/transcribe`)).status).toBe(404);
  expect(service.complained).toEqual([]);
});

test("while the GPU is busy: to the CPU, left out, or 503 with Retry-After", async () => {
  await using _held = await other.lease("TRAIN");
  const [transcribed, translated, repaired] = await Promise.all([
    post("/transcribe"),
    post("/translate"),
    post("/repair"),
  ]);
  expect(await transcribed.json()).toEqual({ result: "5 bytes on the CPU" });
  expect(await repaired.json()).toEqual({ skipped: "GPU_BUSY" });
  expect(translated.status).toBe(503);
  expect(Number(translated.headers.get("retry-after"))).toBeGreaterThan(0);
  expect(await arbiter.metric("gpu_arbiter_work_total", 'device="cpu"', 'result="ok"')).toBe(1);
});

test("under more load than there is GPU, every request is answered", async () => {
  const statuses = await Promise.all(Array.from({ length: 40 }, async () => (await post("/translate")).status));
  expect(statuses.filter((status) => status === 200).length).toBeGreaterThan(0);
  expect(statuses.filter((status) => status !== 200 && status !== 503)).toEqual([]);
});

test("whoever hangs up leaves the queue", async () => {
  await using _held = await other.lease("TRAIN");
  const control = new AbortController();
  const asking = expect(post("/transcribe", control.signal)).rejects.toThrow();
  await until(async () => (await leftAt(arbiter.address)).waiting === 1, "the request to wait");
  control.abort();
  await asking;
  await until(async () => (await leftAt(arbiter.address)).waiting === 0, "the request to leave", 1_000);
});

test("without the arbiter it says so, and goes on when it is back", async () => {
  await arbiter.kill();
  expect((await post("/translate")).status).toBe(503);
  await arbiter.start();
  // What was released in the moment of the kill may be kept for its holder, for a while.
  await until(async () => (await post("/translate")).status === 200, "the service to go on");
});

test("asked to stop, it finishes what is under way, and gives everything back", async () => {
  const asking = post("/transcribe");
  await until(async () => (await leftAt(arbiter.address)).leases === 1, "the work to begin");
  service.kill("SIGTERM");
  expect((await asking).status).toBe(200);
  expect(await service.end()).toBe(0);
  await nothingLeftAt(arbiter.address);
});
