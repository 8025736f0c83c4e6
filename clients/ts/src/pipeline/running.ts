/**
 * One run of a stage, under its lease.
 *
 * Law: what the work throws, and what became of its lease, comes back as an End, never as a rejection; the lease is
 * given back first.
 */
import { createHash } from "node:crypto";
import type { GpuArbiterClient, LeaseOptions } from "../client.js";
import { Declined, LeaseLost } from "../errors.js";
import type { Lease } from "../lease.js";
import type { End, Run } from "./records.js";
import type { StageRun, Work } from "./stage.js";
import { type Device, SkipJob } from "./values.js";

/** Where leases come from: a GpuArbiterClient. */
export type LeaseSource = Pick<GpuArbiterClient, "withGpuLease">;

/** The contract's limit of a sequence's group. */
const MAX_GROUP = 128;

/** What a run is run with. */
export interface Surroundings {
  readonly client: LeaseSource;
  /** Keeps sessions of the same name in other pipelines of this program apart. */
  readonly pipelineId: string;
  /** Told of where the work begins, when it does. */
  readonly began: (device: Device) => void;
  /** Aborted when nobody waits for it any more. */
  readonly signal: AbortSignal;
}

/** Runs it to its end. */
export async function runStage(run: Run, around: Surroundings): Promise<End> {
  // A lease that ends after the work has is no longer the work's business.
  let lost: LeaseLost | undefined;
  const watched = async (lease: Lease) => {
    try {
      return await work(run, around, run.stage.work, "GPU", lease);
    } finally {
      lost = lease.signal.reason instanceof LeaseLost ? lease.signal.reason : undefined;
    }
  };
  try {
    const end = await (run.stage.gpu ? underLease(run, around, watched) : alone(run, around));
    // What was made on a GPU that was somebody else's by then is not to be relied on.
    return lost === undefined ? end : { cause: "FAILED", error: lost };
  } catch (error) {
    if (error instanceof SkipJob) {
      return { cause: "SKIPPED", error };
    }
    // One that comes out of the work itself is the work's own failure.
    const declined = error instanceof Declined && run.beganAt === undefined;
    return { cause: declined ? "DECLINED" : "FAILED", error: lost ?? error };
  }
}

async function alone(run: Run, around: Surroundings): Promise<End> {
  return { cause: "", value: await work(run, around, run.stage.work, "", undefined) };
}

async function underLease(run: Run, around: Surroundings, gpu: (lease: Lease) => Promise<unknown>): Promise<End> {
  const { onCpu, taskType } = run.stage;
  const cpu = onCpu === undefined ? {} : { onCpu: () => work(run, around, onCpu, "CPU", undefined) };
  const outcome = await around.client.withGpuLease<unknown, unknown>(taskType, gpu, {
    ...options(run, around),
    ...cpu,
  });
  if (outcome.kind === "skipped" || (outcome.kind === "fallbackToCpu" && onCpu === undefined)) {
    return { cause: "DECLINED", error: outcome.decline };
  }
  return { cause: "", value: outcome.value };
}

async function work(run: Run, around: Surroundings, function_: Work, device: Device, lease: Lease | undefined) {
  const { job, stage } = run;
  around.began(device);
  const told: StageRun = {
    sessionId: job.session.sessionId,
    utteranceIndex: job.index,
    jobId: jobId(run),
    stage: stage.name,
    lease,
    signal: lease?.signal ?? around.signal,
  };
  return await function_(job.value, told);
}

function options(run: Run, around: Surroundings): LeaseOptions {
  const { job, stage } = run;
  const { sessionId } = job.session;
  const context = { jobId: jobId(run), sessionId, utteranceIndex: job.index, stage: stage.name };
  const group = groupOf(`${around.pipelineId}/${stage.name}/${sessionId}`);
  return {
    ...stage.lease,
    context,
    signal: around.signal,
    ...(stage.sequenced ? { sequence: { group, index: job.index } } : {}),
  };
}

function jobId(run: Run): string {
  return `${run.job.session.sessionId}/${run.job.index}`;
}

function groupOf(name: string): string {
  return [...name].length <= MAX_GROUP ? name : createHash("sha256").update(name).digest("hex");
}
