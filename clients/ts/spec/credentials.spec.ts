/** What goes along with every call: the token, and who asks. */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { GpuArbiterClient, Unauthenticated } from "../src/index.js";
import { FakeArbiter } from "./support/fake-arbiter.js";

const TOKEN = "GPU_ARBITER_TOKEN";
afterEach(() => vi.unstubAllEnvs());

test("the token goes along with sessions and snapshots, from the argument or the environment", async () => {
  await using arbiter = await FakeArbiter.start();
  vi.stubEnv(TOKEN, "secret");
  for (const token of [undefined, "mine", ""]) {
    await using client = new GpuArbiterClient({ address: arbiter.address, token });
    expect(await client.checkFence("gpu:0", 7n)).toMatchObject({ current: true });
    expect(await client.snapshot()).toMatchObject({ instanceId: "fake" });
  }
  const [secret, mine] = ["Bearer secret", "Bearer mine"];
  expect(arbiter.authorizations).toEqual([secret, secret, mine, mine, null, null]);
});

test("a wrong one is an error of its own, and no outage", async () => {
  await using arbiter = await FakeArbiter.start("right");
  await using client = new GpuArbiterClient({ address: arbiter.address, token: "wrong", onUnavailable: "proceed" });
  const refused = { name: "Unauthenticated", code: "UNAUTHENTICATED", message: "who are you?", transient: false };
  await expect(client.acquire("ASR")).rejects.toBeInstanceOf(Unauthenticated);
  await expect(client.acquire("ASR")).rejects.toMatchObject(refused);
  await expect(client.snapshot()).rejects.toMatchObject(refused);
});

test("a token that no header can carry is refused before anything is sent", () => {
  expect(() => new GpuArbiterClient({ token: "two\nlines" })).toThrow(/token holds .* printable/);
});

test("the process says who it is; over a Unix socket with the proof that it is given, anew for each line", async () => {
  const folder = mkdtempSync(join(tmpdir(), "ts-"));
  const path = join(folder, "arbiter.sock");
  let proofs = 0;
  const attesting = createServer((socket) => {
    proofs += 1;
    socket.end(`proof-${proofs}\n`);
  }).listen(`${path}.attest`);
  vi.stubEnv("POD_NAMESPACE", "speech");
  vi.stubEnv("POD_NAME", "asr-0");
  vi.stubEnv("CONTAINER_NAME", "worker");
  try {
    await using arbiter = await FakeArbiter.start(undefined, path);
    for (const clientId of ["one", undefined]) {
      await using client = new GpuArbiterClient({ address: arbiter.address, clientId });
      await client.checkFence("gpu:0", 7n);
    }
    const common = { pid: process.pid, namespace: "speech", pod: "asr-0", container: "worker" };
    expect(arbiter.holders).toMatchObject([
      { ...common, clientId: "one", attestation: "proof-1" },
      { ...common, clientId: expect.stringContaining(`-${process.pid}`), attestation: "proof-2" },
    ]);
    expect(arbiter.holders.every((each) => each.processStartTicks > 0n && each.pidNamespace > 0n)).toBe(true);
  } finally {
    attesting.close();
    rmSync(folder, { recursive: true, force: true });
  }
});
