/** An arbiter that is out of reach: failing, or proceeding without a lease and saying so. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ArbiterUnavailable, GpuArbiterClient, type Lease, LeaseLost, WaitTimeout } from "../src/index.js";
import { Arbiterd } from "./support/arbiterd.js";
import { keptLog } from "./support/looking.js";

/** A port that nobody listens on: loopback's discard. */
const NOBODY = "127.0.0.1:9";
const PROCEED = "GPU_ARBITER_ON_UNAVAILABLE";

let client: GpuArbiterClient | undefined;
const log = keptLog();
beforeEach(() => void log.lines.splice(0));
afterEach(async () => {
  vi.unstubAllEnvs();
  await client?.close();
});

/** A client as the environment has it, with the log kept. */
function clientOf(options: ConstructorParameters<typeof GpuArbiterClient>[0]): GpuArbiterClient {
  client = new GpuArbiterClient({ logger: log, ...options });
  return client;
}

test("unless told, it fails", async () => {
  vi.stubEnv("GPU_ARBITER_ADDRESS", NOBODY);
  await expect(clientOf({}).acquire("ASR")).rejects.toMatchObject({
    name: "ArbiterUnavailable",
    message: expect.stringContaining(NOBODY),
    mayHaveArrived: false,
  });
  vi.stubEnv(PROCEED, "proceed");
  await expect(clientOf({ onUnavailable: "fail" }).lease("ASR")).rejects.toBeInstanceOf(ArbiterUnavailable);
  expect(log.lines).toEqual([]);
});

test("other words than fail and proceed are refused, wherever they stand", async () => {
  await expect(clientOf({}).acquire("ASR", { onUnavailable: "wait" as never })).rejects.toThrow(RangeError);
  vi.stubEnv(PROCEED, "maybe");
  expect(() => clientOf({})).toThrow('onUnavailable is "maybe"; write "fail" or "proceed"');
});

test("a lease that is none says so", async () => {
  vi.stubEnv(PROCEED, "proceed");
  vi.stubEnv("CUDA_VISIBLE_DEVICES", "1");
  const lease = await clientOf({ address: NOBODY }).lease("ASR", { memory: "6GiB", requestId: "mine" });
  expect(lease).toMatchObject({
    unmanaged: true,
    leaseId: "",
    fencingToken: 0n,
    gpus: [],
    taskType: "ASR",
    requestId: "mine",
    visibleDevices: "1",
    lost: false,
    uncertain: false,
    released: undefined,
  });
  await lease.renew({ extendHold: "30s" });
  await lease.resize({ memory: "4GiB" });
  await expect(lease.renew({ extendHold: "soon" })).rejects.toThrow(RangeError);
  await expect(lease.resize({ memory: "4G" })).rejects.toThrow(RangeError);
  lease.report({ workItems: 3 });
  lease.check();
  const released = await lease.release();
  expect(released).toMatchObject({ reason: "", alreadyEnded: false });
  expect(await lease.release()).toBe(released);
  expect(() => lease.check()).toThrow(LeaseLost);
  await expect(lease.renew()).rejects.toThrow("is over");
});

test("it can be said for one request, and work is done under it", async () => {
  const control = new AbortController();
  const working = clientOf({ address: NOBODY }).withGpuLease(
    "ASR",
    (lease) => {
      expect(lease.signal.aborted).toBe(false);
      control.abort("enough");
      return lease.signal.reason;
    },
    { onUnavailable: "proceed", signal: control.signal },
  );
  expect(await working).toMatchObject({ kind: "granted", value: "enough", lease: { unmanaged: true, lost: false } });
});

test("one warning for an outage, one word when it is over, and a refusal is an answer", async () => {
  // A release just before the kill may be lost with it; the lease is then kept for its holder, for so long.
  await using arbiter = await Arbiterd.start("cooldown=0s", "recovery_grace=300ms");
  const asking = clientOf({ address: arbiter.address, onUnavailable: "proceed" });
  const ask = async () => {
    await using lease: Lease = await asking.lease("ASR");
    return lease.unmanaged;
  };
  expect(await ask()).toBe(false);
  await arbiter.kill();
  expect([await ask(), await ask(), await ask()]).toEqual([true, true, true]);
  await arbiter.start();
  expect(await ask()).toBe(false);
  const said = log.lines.filter((line) => line.startsWith("warn: "));
  expect(said.map((line) => line.split(": ")[1])).toEqual([
    "going on WITHOUT leases, since the arbiter is unavailable",
    "the arbiter is back",
  ]);
  await using _held = await asking.lease("ASR");
  await expect(asking.lease("ASR", { maxWait: 0 })).rejects.toBeInstanceOf(WaitTimeout);
});
