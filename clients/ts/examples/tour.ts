/** What docs/typescript-client.md shows, as a program: each of its blocks is a part of this file. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout } from "node:timers/promises";
import {
  type Acquired,
  ArbiterUnavailable,
  ConsistencyCheck,
  FallbackToCpu,
  GpuArbiterClient,
  type Lease,
  LeaseLost,
  Skipped,
  withGpuLease,
} from "@gpu-arbiter/client";

type Batch = readonly string[];
const batches: readonly Batch[] = [["one"], ["two", "three"]];
const step = (_batch: Batch, _devices?: string) => Promise.resolve();
const onGpu = (text: string, devices: string | undefined) => Promise.resolve(`${text} on ${devices}`);
const onCpu = (text: string) => Promise.resolve(`${text} on the CPU`);
const saveCheckpoint = () => Promise.resolve();
const say = (_text: string) => {};

/** A lease for a block. */
export async function block(): Promise<void> {
  await using client = new GpuArbiterClient();
  {
    await using lease = await client.lease("ASR", { memory: "6GiB" });
    await onGpu("hello", lease.visibleDevices);
  } // released here
}

/** The same where `await using` is not at hand. */
export async function blockWithout(client: GpuArbiterClient): Promise<void> {
  const lease = await client.lease("ASR", { memory: "6GiB" });
  try {
    await onGpu("hello", lease.visibleDevices);
  } finally {
    await lease.release();
  }
}

/** A function under a lease. */
export async function work(client: GpuArbiterClient, text: string, signal: AbortSignal): Promise<string | undefined> {
  const outcome = await client.withGpuLease("ASR", (lease) => onGpu(text, lease.visibleDevices), {
    memory: "6GiB",
    busyPolicy: "FALLBACK_CPU",
    onCpu: () => onCpu(text),
    jobId: "job-1",
    sessionId: "call-17",
    utteranceIndex: 3,
    signal,
  });
  switch (outcome.kind) {
    case "granted":
      return outcome.value; // what onGpu came to
    case "fallbackToCpu":
      return outcome.value; // what onCpu came to; the arbiter was told
    case "skipped":
      return undefined; // left out: outcome.decline says why
  }
}

/** Now and then on both. */
const check = new ConsistencyCheck<string, string>({
  rate: 0.01,
  compare: (gpu, cpu) => gpu.length === cpu.length, // or "exact", or "allclose"
  onMismatch: ({ taskType, gpuResult, cpuResult }) => say(`${taskType}: ${gpuResult} against ${cpuResult}`),
});

export async function compared(client: GpuArbiterClient, text: string): Promise<void> {
  await client.withGpuLease("ASR", (lease) => onGpu(text, lease.visibleDevices), {
    onCpu: () => onCpu(text),
    consistency: check,
  });
}

/** Outcomes as values. */
export async function outcomes(client: GpuArbiterClient, text: string): Promise<string> {
  const acquired: Acquired = await client.acquire("REPAIR", { busyPolicy: "SKIP", maxWait: "400ms" });
  if (acquired.kind !== "granted") {
    const { reason, detail, retryAfterMs, blockers } = acquired.decline;
    say(`not repaired: ${reason} (${detail}), ${blockers.length} in the way, again in ${retryAfterMs} ms`);
    return text;
  }
  await using lease = acquired.lease; // yours to release
  return await onGpu(text, lease.visibleDevices);
}

/** Declines as errors. */
export async function declines(client: GpuArbiterClient, text: string): Promise<string> {
  try {
    await using lease = await client.lease("REPAIR", { busyPolicy: "SKIP", maxWait: 0 });
    return await onGpu(text, lease.visibleDevices);
  } catch (error) {
    if (error instanceof Skipped || error instanceof FallbackToCpu) {
      return text;
    }
    throw error;
  }
}

/** Waiting. */
export async function waiting(client: GpuArbiterClient): Promise<Lease> {
  return await client.lease("ASR", {
    maxWait: "30s",
    signal: AbortSignal.timeout(10_000), // leaves the queue
    onQueued: ({ position, reason, estimatedWaitMs }) => say(`number ${position}: ${reason}, ${estimatedWaitMs} ms`),
  });
}

/** The arbiter wants it back, or takes it. */
export async function train(lease: Lease): Promise<void> {
  for (const batch of batches) {
    lease.check(); // throws LeaseLost
    if (lease.yieldRequest !== undefined) {
      await saveCheckpoint();
      break;
    }
    await step(batch, lease.visibleDevices);
  }
}

/** The same by signals and callbacks. */
export async function listen(client: GpuArbiterClient): Promise<void> {
  await using lease = await client.lease("TRAIN", {
    onYield: (request, each) => say(`${each.leaseId} is wanted back: ${request.reason}, ${request.graceMs} ms`),
    onLost: (each) => say(`${each.leaseId} is lost: ${each.lostReason}`),
  });
  await setTimeout(10, undefined, { signal: lease.signal }); // ends early when it is lost
}

/** A process under a lease. */
export async function program(client: GpuArbiterClient): Promise<void> {
  await using lease = await client.lease("TRAIN", { memory: "10GiB" });
  const child = spawn("sh", ["-c", 'echo "training on $CUDA_VISIBLE_DEVICES"'], {
    env: { ...process.env, CUDA_VISIBLE_DEVICES: lease.visibleDevices },
    signal: lease.signal, // ends it when the lease is lost
    stdio: "inherit",
  });
  await once(child, "exit");
}

/** Changing it. */
export async function change(lease: Lease): Promise<void> {
  await lease.renew({ extendHold: "30s" }); // holdRemainingMs is to be 30,000 from now
  await lease.resize({ memory: "4GiB", shared: true }); // the model is loaded: let others in; may throw ResizeRefused
}

/** Giving it back, with news. */
export async function report(client: GpuArbiterClient, batch: Batch): Promise<void> {
  const outcome = await client.withGpuLease("NMT", async (lease) => {
    await step(batch, lease.visibleDevices);
    lease.report({ workItems: batch.length, peakMemory: "3.5GiB" });
  });
  if (outcome.kind === "granted") {
    const { heldMs, memoryVerdict } = await outcome.lease.release(); // it is; this waits for the arbiter's answer
    say(`held for ${heldMs} ms: ${memoryVerdict}`);
  }
}

/** Without an arbiter. */
export async function proceed(text: string): Promise<string> {
  await using client = new GpuArbiterClient({ onUnavailable: "proceed" });
  await using lease = await client.lease("ASR");
  if (lease.unmanaged) {
    say("nothing keeps others off the GPU now");
  }
  return await onGpu(text, lease.visibleDevices);
}

/** A lease that outlives a process. */
export async function nightly(): Promise<void> {
  await using client = new GpuArbiterClient({ clientId: "indexer" });
  await using lease = await client.lease("INDEX", { requestId: "nightly-2026-02-01", ttl: "60s" });
  await step([], lease.visibleDevices);
}

/** Errors. */
export async function errors(client: GpuArbiterClient): Promise<void> {
  try {
    await client.withGpuLease("ASR", (lease) => step([], lease.visibleDevices));
  } catch (error) {
    if (error instanceof ArbiterUnavailable) {
      // Fail open: do it anyway; or fail closed: throw.
    } else if (error instanceof LeaseLost) {
      // The work was stopped.
    }
    throw error;
  }
}

/** Looking. */
export async function look(client: GpuArbiterClient, signal: AbortSignal): Promise<void> {
  const { gpus, leases, queueLength } = await client.snapshot();
  say(`${leases.length} leases on ${gpus.length} GPUs, ${queueLength} waiting`);
  for await (const state of client.watch({ minInterval: "1s", signal })) {
    say(`${state.leases.length} leases`);
  }
}

/** What operators may do. */
export async function operate(client: GpuArbiterClient, lease: Lease, signal: AbortSignal): Promise<number> {
  const { leaseId } = lease;
  await client.admin.revoke(leaseId, { grace: "30s", reason: "maintenance" });
  const left = await client.admin.drain({ gpus: ["gpu:0"], reason: "a new driver" }); // or { all: true }
  await client.admin.resume({ all: true });
  await client.admin.updateConfig("queue_limit: 16", { dryRun: true });
  for await (const event of client.admin.events({ follow: true, signal })) {
    say(`${event.taskType} ${event.detail}`);
  }
  return left;
}

/** The client of the process. */
export async function shared(): Promise<void> {
  await withGpuLease("ASR", (lease) => step([], lease.visibleDevices));
}
