/**
 * What the public types promise; compiled by `make check` on the sources and by spec/package.spec.ts on the package, never
 * run.
 */
import {
  type Acquired,
  ArbiterError,
  type ArbiterSnapshot,
  ArbiterUnavailable,
  ConsistencyCheck,
  type EndReasonName,
  FallbackToCpu,
  type Fence,
  GpuArbiterClient,
  type JobResult,
  type Lease,
  type LeaseOptions,
  type Logger,
  type Outcome,
  Pipeline,
  type Released,
  Skipped,
  type Stage,
  type StageRun,
  type State,
  type sharedClient,
  type WaitReasonName,
  WaitTimeout,
  withGpuLease,
  type YieldRequest,
} from "@gpu-arbiter/client";
import { BusyPolicy, EventType, GpuArbiterAdmin, type Lease as LeaseMessage } from "@gpu-arbiter/client/v1";

/** Fails to compile unless A and B are the same type. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_proof: Same<A, B>) => {};

export const quiet: Logger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
export const contract = [BusyPolicy.SKIP, EventType.GRANTED, GpuArbiterAdmin.typeName] as const;

export async function clients(): Promise<void> {
  await using client = new GpuArbiterClient({ address: "unix:/run/arbiter.sock", clientId: "me", token: "t" });
  new GpuArbiterClient({ onUnavailable: "proceed", logger: quiet, address: undefined });
  same<typeof client.address, string>(true);
  same<ReturnType<typeof sharedClient>, GpuArbiterClient>(true);
  // @ts-expect-error -- "fail" or "proceed"
  new GpuArbiterClient({ onUnavailable: "wait" });
  // @ts-expect-error -- not an option
  new GpuArbiterClient({ host: "here" });
  // @ts-expect-error -- for people who mean `address`
  new GpuArbiterClient("127.0.0.1:50051");
  // @ts-expect-error -- read only
  client.address = "elsewhere:1";
}

export async function requests(client: GpuArbiterClient): Promise<void> {
  const options: LeaseOptions = {
    memory: "6GiB",
    count: 2,
    gpus: ["gpu:0"],
    shared: true,
    priority: 90,
    maxWait: 0,
    maxHold: "10m",
    ttl: 30_000,
    detached: true,
    busyPolicy: "FALLBACK_CPU",
    placement: "BEST_FIT",
    resident: 1_073_741_824n,
    sequence: { group: "session", index: 3 },
    context: { jobId: "j", attributes: { speaker: "a" } },
    requestId: "r-1",
    signal: AbortSignal.timeout(1_000),
    onUnavailable: "fail",
    onQueued: ({ position }) => position.toFixed(),
    onYield: (request: YieldRequest, lease: Lease) => [request.graceMs, lease.leaseId],
    onLost: async (lease) => await Promise.resolve(lease.lostReason),
  };
  same<Awaited<ReturnType<typeof client.lease>>, Lease>(true);
  await client.lease("ASR", options);
  // @ts-expect-error -- a task type is needed
  await client.lease();
  // @ts-expect-error -- names of the contract, without their prefix
  await client.lease("ASR", { busyPolicy: "BUSY_POLICY_SKIP" });
  // @ts-expect-error -- the unspecified value is said by leaving it out
  await client.lease("ASR", { busyPolicy: "UNSPECIFIED" });
  // @ts-expect-error -- a boolean says it
  await client.lease("ASR", { sharing: "SHARED" });
  // @ts-expect-error -- both belong to a sequence
  await client.lease("ASR", { sequence: { group: "session" } });
}

export async function outcomes(client: GpuArbiterClient): Promise<number | string | undefined> {
  const acquired: Acquired = await client.acquire("ASR");
  if (acquired.kind === "granted") {
    same<typeof acquired.lease, Lease>(true);
    // @ts-expect-error -- a grant is no decline
    acquired.decline;
  } else if (acquired.kind === "skipped") {
    same<typeof acquired.decline, Skipped>(true);
  } else {
    same<typeof acquired.decline, FallbackToCpu>(true);
    same<typeof acquired.decline.reason, WaitReasonName>(true);
  }
  const skippable = await client.withGpuLease("ASR", (lease) => lease.gpus.length, {
    busyPolicy: "SKIP",
    stage: "asr",
  });
  same<typeof skippable, Outcome<number>>(true);
  const either = await withGpuLease("ASR", async () => await Promise.resolve(1), { client, onCpu: () => "by hand" });
  same<typeof either, Outcome<number, string>>(true);
  const check = new ConsistencyCheck<number, string>({ compare: (gpu, cpu) => String(gpu) === cpu });
  same<typeof check.counts.matched, number>(true);
  await client.withGpuLease("ASR", () => 1, { onCpu: () => "1", consistency: check });
  await client.withGpuLease("ASR", () => 1, { onCpu: () => "1", consistency: new ConsistencyCheck({ rate: 0.1 }) });
  // @ts-expect-error -- it compares numbers with strings
  await client.withGpuLease("ASR", () => "1", { onCpu: () => "1", consistency: check });
  switch (either.kind) {
    case "granted":
      same<typeof either.value, number>(true);
      return either.value;
    case "fallbackToCpu":
      same<typeof either.value, string>(true);
      return either.value;
    case "skipped":
      // @ts-expect-error -- nothing was done
      return either.value;
  }
}

export async function leases(client: GpuArbiterClient, lease: Lease): Promise<void> {
  same<typeof lease.fencingToken, bigint>(true);
  same<typeof lease.visibleDevices, string | undefined>(true);
  same<typeof lease.holdRemainingMs, number | undefined>(true);
  same<typeof lease.message, LeaseMessage | undefined>(true);
  same<typeof lease.unmanaged, boolean>(true);
  const { check, release } = lease;
  check();
  const released: Released = await release({ result: "OK", device: "GPU", workItems: 3, peakMemory: "2GiB" });
  const reason: EndReasonName | (string & {}) = released.reason;
  same<typeof reason, EndReasonName | (string & {})>(true);
  await lease.renew({ extendHold: "30s", signal: lease.signal });
  await lease.resize({ memory: "4GiB" });
  const { leaseId, fencingToken } = lease;
  await client.release({ leaseId, fencingToken });
  await client.release({ requestId: "r-1" });
  same<Awaited<ReturnType<typeof client.checkFence>>, Fence>(true);
  // @ts-expect-error -- which one?
  await client.release({});
  // @ts-expect-error -- tokens are 64 bits wide
  await client.checkFence("gpu:0", 7);
  // @ts-expect-error -- results of the contract
  await lease.release({ result: "FINE" });
  // @ts-expect-error -- only the library marks it so
  lease.lost = true;
}

export async function looking(client: GpuArbiterClient): Promise<bigint> {
  const state: ArbiterSnapshot = await client.snapshot({ gpus: ["0"], processes: true, maxTickets: 1 });
  for await (const each of client.watch({ minInterval: "1s", signal: AbortSignal.timeout(1) })) {
    same<typeof each, ArbiterSnapshot>(true);
  }
  return state.revision;
}

export async function operating({ admin }: GpuArbiterClient): Promise<void> {
  same<Awaited<ReturnType<typeof admin.drain>>, number>(true);
  await admin.revoke("lease", { grace: "30s" });
  // @ts-expect-error -- which GPUs, or all
  await admin.drain({ reason: "a new driver" });
  for await (const event of admin.events({ since: new Date(), afterSequence: 1n })) {
    same<typeof event.type, EventType>(true);
  }
}

export function errors(error: unknown): number | undefined {
  if (error instanceof ArbiterError) {
    same<typeof error.retryAfterMs, number | undefined>(true);
    same<typeof error.metadata, Readonly<Record<string, string>>>(true);
  }
  if (error instanceof ArbiterUnavailable) {
    same<typeof error.mayHaveArrived, boolean>(true);
  }
  if (error instanceof Skipped || error instanceof FallbackToCpu) {
    return error.waitedMs + error.blockers.length;
  }
  return error instanceof WaitTimeout ? error.retryAfterMs : undefined;
}

const hear = (result: JobResult) => [result.utteranceIndex, result.value, result.late];

export async function pipelines(client: GpuArbiterClient): Promise<number | undefined> {
  const stages: Stage[] = [
    { name: "SPLIT", work: (text: string) => text.length, gpu: false, concurrency: 8 },
    {
      name: "NMT",
      work: async (length: number, run: StageRun) => `${length} ${run.jobId} ${run.lease?.visibleDevices}`,
      onCpu: () => "cpu",
      lease: { memory: "4GiB", maxWait: 3_000 },
      timeout: "5s",
      onFailure: "skip",
    },
  ];
  // @ts-expect-error -- "fail" or "skip"
  stages.push({ name: "NMT", work: hear, onFailure: "retry" });
  // @ts-expect-error -- the pipeline says it
  stages.push({ name: "NMT", work: hear, lease: { requestId: "r" } });
  await using pipeline = new Pipeline(client, stages, { holdBack: null, maxInFlight: 8, onTimeout: () => {} });
  await using session = pipeline.session("call-7", { onResult: hear });
  const job = await session.submit("hello", { utteranceIndex: 3, signal: AbortSignal.timeout(1) });
  same<typeof job.stages, Readonly<Record<string, State>>>(true);
  same<Awaited<typeof job.result>, JobResult>(true);
  return job.cancel() ? pipeline.statistics().stages["NMT"]?.waitedMs : undefined;
}
