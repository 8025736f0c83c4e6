/** Every refusal that an arbiter on this machine can be brought to, as its class; the rest is in src/status.spec.ts. */
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import * as lib from "../src/index.js";
import { Arbiterd } from "./support/arbiterd.js";
import { keptLog, nothingLeftAt } from "./support/looking.js";

let arbiter: Arbiterd;
let client: lib.GpuArbiterClient;
let other: lib.GpuArbiterClient;
beforeAll(async () => {
  arbiter = await Arbiterd.start("queue_limit=1", "limits.leases_per_client=1", "cooldown=0s");
  client = new lib.GpuArbiterClient({ address: arbiter.address, clientId: "one" });
  other = new lib.GpuArbiterClient({ address: arbiter.address, clientId: "two" });
});
beforeEach(() => nothingLeftAt(arbiter.address));
afterAll(async () => {
  await client.close();
  await other.close();
  await arbiter[Symbol.asyncDispose]();
});

/** What a promise fails with. */
async function failure<E extends lib.ArbiterError>(
  promise: Promise<unknown>,
  kind: new (...parts: never[]) => E,
): Promise<E> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(kind);
  return error as E;
}

test("InvalidRequest names each field", async () => {
  const error = await failure(client.acquire("no such type!", { priority: 101 }), lib.InvalidRequest);
  expect(error).toMatchObject({ reason: "INVALID_REQUEST", code: "INVALID_ARGUMENT", transient: false });
  expect(error.violations.map((each) => each.field)).toEqual(["acquire.task_type", "acquire.priority"]);
});

test("what cannot be asked for is refused here, before it costs anybody's line", async () => {
  const { lines, ...logger } = keptLog();
  await using busy = new lib.GpuArbiterClient({ address: arbiter.address, clientId: "busy", logger });
  await using lease = await busy.lease("ASR");
  const wrong = "cannot encode field gpuarbiter.v1.ReleaseRequest.fencing_token";
  await expect(busy.release({ leaseId: lease.leaseId, fencingToken: -1n })).rejects.toThrow(wrong);
  await expect(busy.acquire("ASR", { priority: 1e12 })).rejects.toThrow(RangeError);
  await expect(busy.acquire("ASR", { onYield: "later" as never })).rejects.toThrow(
    "onYield is later; write a function",
  );
  await expect(busy.withGpuLease("ASR", undefined as never)).rejects.toThrow("work is missing; write a function");
  await expect(busy.snapshot({ maxTickets: -1 })).rejects.toThrow("maxTickets is -1");
  await lease.renew();
  expect(lines).toEqual([]);
});

test("a client that cannot even say who it is", async () => {
  await using nobody = new lib.GpuArbiterClient({ address: arbiter.address, clientId: "x".repeat(200) });
  const error = await failure(nobody.acquire("ASR"), lib.InvalidRequest);
  expect(error.violations[0]?.field).toContain("holder.client_id");
});

test("UnknownGpu", async () => {
  const error = await failure(client.acquire("ASR", { gpus: "gpu:7" }), lib.UnknownGpu);
  expect(error.metadata["known"]).toBe("gpu:0");
  await failure(client.snapshot({ gpus: ["gpu:7"] }), lib.UnknownGpu);
});

test("Infeasible", async () => {
  await failure(client.acquire("ASR", { memory: "30GiB" }), lib.Infeasible);
});

test("UnknownLease", async () => {
  await failure(client.release({ leaseId: "nobody's" }), lib.UnknownLease);
  await failure(client.renew({ leaseId: "nobody's" }), lib.UnknownLease);
});

test("ClientLimit, WaitTimeout and QueueFull", async () => {
  await using lease = await client.lease("ASR");
  await failure(client.acquire("ASR", { maxWait: 0 }), lib.ClientLimit);
  const late = await failure(other.acquire("ASR", { maxWait: 100 }), lib.WaitTimeout);
  expect(late).toMatchObject({ code: "RESOURCE_EXHAUSTED", metadata: { holder: "one", wait_reason: "GPU_BUSY" } });
  expect(late.retryAfterMs).toBeGreaterThan(0);
  const control = new AbortController();
  let queued = () => {};
  const waits = new Promise<void>((resolve) => {
    queued = resolve;
  });
  const waiting = other.acquire("ASR", { maxWait: "20s", signal: control.signal, onQueued: () => queued() });
  await waits;
  await using third = new lib.GpuArbiterClient({ address: arbiter.address, clientId: "three" });
  const full = await failure(third.acquire("ASR"), lib.QueueFull);
  expect(full).toMatchObject({ metadata: { holder: "one", queue_limit: "1" } });
  control.abort("enough");
  await expect(waiting).rejects.toBe("enough");
  expect(lease.lost).toBe(false);
});

test("StaleToken", async () => {
  await using lease = await client.lease("ASR");
  const { leaseId } = lease;
  await failure(client.release({ leaseId, fencingToken: 1n }), lib.StaleToken);
  await failure(client.renew({ leaseId, fencingToken: 1n }), lib.StaleToken);
  expect(lease.lost, "somebody else's mistake").toBe(false);
});

test("RequestIdConflict and Superseded", async () => {
  await using lease = await client.lease("ASR", { requestId: "r-1" });
  await failure(client.acquire("NMT", { requestId: "r-1" }), lib.RequestIdConflict);
  const lost = new Promise<lib.Lease>((resolve) => lease.signal.addEventListener("abort", () => resolve(lease)));
  await using joined = await client.lease("ASR", { requestId: "r-1" });
  expect(joined.leaseId).toBe(lease.leaseId);
  expect((await lost).lostReason).toBe("SUPERSEDED");
  expect(await lease.release(), "what another took over is left to it").toMatchObject({ alreadyEnded: true });
  joined.check();
});

test("Superseded while it waits, and Cancelled by its id", async () => {
  await using _lease = await client.lease("ASR");
  const places: string[] = [];
  const asking = (requestId: string) =>
    other.acquire("ASR", { requestId, maxWait: "20s", onQueued: () => places.push(requestId) });
  const first = failure(asking("r-2"), lib.Superseded);
  await expect.poll(() => places.length).toBe(1);
  const second = failure(asking("r-2"), lib.Cancelled);
  await first;
  expect(await other.release({ requestId: "r-2" })).toMatchObject({ reason: "CANCELLED" });
  await second;
});

test("LeaseEnded and ResizeRefused", async () => {
  const lease = await client.lease("ASR", { memory: "1GiB" });
  const error = await failure(lease.resize({ memory: "23.9GiB" }), lib.ResizeRefused);
  expect(error).toMatchObject({ code: "FAILED_PRECONDITION" });
  expect(lease.lost).toBe(false);
  const { leaseId, fencingToken } = lease;
  await lease.release();
  const ended = await failure(client.renew({ leaseId, fencingToken }), lib.LeaseEnded);
  expect(ended.metadata).toEqual({ end_reason: "RELEASED" });
  await failure(client.acquire("ASR", { requestId: lease.requestId }), lib.LeaseEnded);
});

test("ShuttingDown", async () => {
  await using dying = await Arbiterd.start("shutdown_grace=30s");
  await using one = new lib.GpuArbiterClient({ address: dying.address });
  const lease = await one.lease("ASR");
  dying.signal("SIGTERM");
  await expect.poll(() => dying.output).toMatch(/shut|stop/i);
  const error = await failure(one.acquire("NMT"), lib.ShuttingDown);
  expect(error).toMatchObject({ reason: "SHUTDOWN", transient: true });
  expect(await lease.release(), "what is held can still be released").toMatchObject({ reason: "RELEASED" });
});
