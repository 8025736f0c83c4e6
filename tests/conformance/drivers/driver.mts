/**
 * The driver of the TypeScript client: commands and answers as lines of JSON (docs/conformance.md).
 *
 * Law: only what the package exports is used, as a program would use it.
 */
import { createInterface } from "node:readline";
import {
  type Acquired,
  ArbiterError,
  Declined,
  FallbackToCpu,
  GpuArbiterClient,
  type Lease,
  type LeaseOptions,
  type OnUnavailable,
  type Outcome,
  type Released,
  type WorkReport,
} from "@gpu-arbiter/client";

type Facts = Record<string, unknown>;
/** The options of a request, by the names of the contract; their values are as the scenario has them. */
type Wishes = Record<string, unknown>;

/** What the work of a scenario throws when it is told to. */
class WorkFailed extends Error {}
/** The reason of a caller who gives up. */
class GivenUp extends Error {}

const CAMEL: Readonly<Record<string, keyof LeaseOptions>> = {
  memory: "memory",
  count: "count",
  gpus: "gpus",
  shared: "shared",
  priority: "priority",
  max_wait: "maxWait",
  max_hold: "maxHold",
  ttl: "ttl",
  detached: "detached",
  busy_policy: "busyPolicy",
  placement: "placement",
  resident: "resident",
  sequence: "sequence",
  request_id: "requestId",
};

function tell(message: Facts): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

// -- the words of the protocol --

function seconds(ms: number | undefined): number | null {
  return ms === undefined ? null : ms / 1_000;
}

function leaseFacts(lease: Lease): Facts {
  return {
    lease_id: lease.leaseId,
    fencing_token: String(lease.fencingToken),
    request_id: lease.requestId,
    task_type: lease.taskType,
    gpus: lease.gpus.map(({ key, uuid, index, committedBytes }) => ({
      key,
      uuid,
      index,
      committed_bytes: committedBytes,
    })),
    sharing: lease.sharing,
    priority: lease.priority,
    detached: lease.detached,
    unmanaged: lease.unmanaged,
    queue_wait_seconds: seconds(lease.queueWaitMs),
    hold_remaining_seconds: seconds(lease.holdRemainingMs),
    ttl_remaining_seconds: seconds(lease.ttlRemainingMs),
    yield_requested: lease.yieldRequest?.reason ?? null,
    uncertain: lease.uncertain,
    lost: lease.lost,
    lost_reason: lease.lostReason,
  };
}

function declineFacts(decline: Declined): Facts {
  return {
    kind: decline instanceof FallbackToCpu ? "fallback_cpu" : "skipped",
    reason: decline.reason,
    waited_seconds: seconds(decline.waitedMs),
    retry_after_seconds: seconds(decline.retryAfterMs),
    blockers: decline.blockers.map((each) => each.leaseId),
  };
}

function releasedFacts(released: Released): Facts {
  return {
    kind: "released",
    reason: released.reason,
    already_ended: released.alreadyEnded,
    held_seconds: seconds(released.heldMs),
  };
}

function errorFacts(error: unknown): Facts {
  if (error instanceof GivenUp) {
    return { kind: "given_up" };
  }
  if (error instanceof Declined) {
    return declineFacts(error);
  }
  if (error instanceof ArbiterError) {
    return {
      kind: "refused",
      error: error.name,
      reason: error.reason,
      message: error.message,
      fields: error.violations.map((each) => each.field),
      retry_after_seconds: seconds(error.retryAfterMs),
    };
  }
  if (error instanceof RangeError || error instanceof TypeError) {
    // What the library refuses by itself, before anything is sent.
    const { message } = error;
    return { kind: "refused", error: "BadInput", reason: "", message, fields: [], retry_after_seconds: null };
  }
  return { kind: "failed", message: error instanceof Error ? (error.stack ?? error.message) : String(error) };
}

// -- what is under way --

/** The body of a block or run: goes on until it is told to finish. */
class Work {
  finish: (raising: boolean) => void = () => {};
  readonly #finished = new Promise<boolean>((resolve) => {
    this.finish = resolve;
  });
  device = "";
  lease: Lease | undefined;

  async goOn(): Promise<void> {
    if (await this.#finished) {
      throw new WorkFailed();
    }
  }
}

const clients = new Map<string, GpuArbiterClient>();
const leases = new Map<string, Lease>();
const works = new Map<string, Work>();
const asking = new Map<string, AbortController>();

function found<T>(map: ReadonlyMap<string, T>, name: string): T {
  const value = map.get(name);
  if (value === undefined) {
    throw new Error(`there is no ${name}`);
  }
  return value;
}

function optionsOf(name: string, wishes: Wishes): LeaseOptions {
  const said = Object.fromEntries(Object.entries(wishes).map(([key, value]) => [CAMEL[key] ?? key, value]));
  return {
    ...said,
    onQueued: (queued) =>
      tell({
        event: "queued",
        lease: name,
        request_id: queued.requestId,
        position: queued.position,
        queue_length: queued.queueLength,
        reason: queued.reason,
        blockers: queued.blockers.map((each) => each.leaseId),
      }),
    onYield: ({ reason, graceMs }) => tell({ event: "yielding", lease: name, reason, grace_seconds: seconds(graceMs) }),
    onLost: (lease) => tell({ event: "lost", lease: name, reason: lease.lostReason }),
  };
}

function began(name: string, work: Work, device: "GPU" | "CPU", lease: Lease | undefined): void {
  work.device = device;
  if (lease !== undefined) {
    work.lease = lease;
    leases.set(name, lease);
  }
  tell({ event: "working", lease: name, device, ...(lease === undefined ? {} : leaseFacts(lease)) });
}

async function done(work: Work, running: Promise<Facts | undefined>): Promise<Facts> {
  let raised = false;
  try {
    const declined = await running;
    if (declined !== undefined) {
      return declined;
    }
  } catch (error) {
    if (!(error instanceof WorkFailed)) {
      throw error;
    }
    raised = true;
  }
  const ended = await work.lease?.release();
  return { kind: "done", device: work.device, raised, released: ended?.reason ?? null };
}

function newWork(name: string): Work {
  const work = new Work();
  works.set(name, work);
  return work;
}

// -- the commands --

interface Asked {
  readonly actor: string;
  readonly lease: string;
  readonly task_type: string;
  readonly options: Wishes;
}

async function acquire(asked: Asked & { readonly interruptible?: boolean }): Promise<Facts> {
  const giveUp = new AbortController();
  asking.set(asked.lease, giveUp);
  const options = { ...optionsOf(asked.lease, asked.options), signal: giveUp.signal };
  const acquired: Acquired = await found(clients, asked.actor).acquire(asked.task_type, options);
  if (acquired.kind !== "granted") {
    return declineFacts(acquired.decline);
  }
  leases.set(asked.lease, acquired.lease);
  return { kind: "granted", ...leaseFacts(acquired.lease) };
}

function block(asked: Asked): Promise<Facts> {
  const work = newWork(asked.lease);
  const inABlock = async () => {
    // As `await using` does it, which Node 20 has no syntax for.
    const lease = await found(clients, asked.actor).lease(asked.task_type, optionsOf(asked.lease, asked.options));
    try {
      began(asked.lease, work, "GPU", lease);
      await work.goOn();
    } finally {
      await lease[Symbol.asyncDispose]();
    }
    return undefined;
  };
  return done(work, inABlock());
}

function run(asked: Asked & { readonly cpu: boolean }): Promise<Facts> {
  const work = newWork(asked.lease);
  const onGpu = (lease: Lease) => {
    began(asked.lease, work, "GPU", lease);
    return work.goOn();
  };
  const onCpu = () => {
    began(asked.lease, work, "CPU", undefined);
    return work.goOn();
  };
  const underALease = async () => {
    const options = { ...optionsOf(asked.lease, asked.options), ...(asked.cpu ? { onCpu } : {}) };
    const outcome: Outcome<void, void> = await found(clients, asked.actor).withGpuLease(
      asked.task_type,
      onGpu,
      options,
    );
    return outcome.kind === "granted" || (outcome.kind === "fallbackToCpu" && asked.cpu)
      ? undefined
      : declineFacts(outcome.decline);
  };
  return done(work, underALease());
}

interface Named {
  readonly lease: string;
}
interface By {
  readonly actor: string;
}

/** Each is one of the protocol's; without facts of its own the answer is "ok". */
const commands = {
  connect(it: By & { readonly address: string; readonly client_id: string; readonly on_unavailable?: OnUnavailable }) {
    const { address, client_id: clientId, on_unavailable: onUnavailable } = it;
    clients.set(it.actor, new GpuArbiterClient({ address, clientId, onUnavailable }));
  },
  async close(it: By) {
    const client = found(clients, it.actor);
    clients.delete(it.actor);
    await client.close();
  },
  acquire,
  block,
  run,
  finish(it: Named & { readonly raising: boolean }) {
    found(works, it.lease).finish(it.raising);
  },
  give_up(it: Named) {
    found(asking, it.lease).abort(new GivenUp());
  },
  facts(it: Named) {
    return { kind: "facts", ...leaseFacts(found(leases, it.lease)) };
  },
  check(it: Named) {
    found(leases, it.lease).check();
  },
  async release(it: Named) {
    return releasedFacts(await found(leases, it.lease).release());
  },
  async release_by_id(
    it: By & { readonly lease_id?: string; readonly request_id?: string; readonly fencing_token?: string },
  ) {
    const target = it.lease_id === undefined ? { requestId: it.request_id ?? "" } : { leaseId: it.lease_id };
    const fencingToken = BigInt(it.fencing_token ?? 0);
    return releasedFacts(await found(clients, it.actor).release({ ...target, fencingToken }));
  },
  async renew(it: Named & { readonly extend_hold?: string }) {
    await found(leases, it.lease).renew({ extendHold: it.extend_hold });
  },
  async resize(it: Named & { readonly memory?: string; readonly shared?: boolean }) {
    await found(leases, it.lease).resize({ memory: it.memory, shared: it.shared });
  },
  async check_fence(it: By & { readonly gpu: string; readonly fencing_token: string }) {
    const fence = await found(clients, it.actor).checkFence(it.gpu, BigInt(it.fencing_token));
    return { kind: "fence", current: fence.current, newest_token: String(fence.newestToken) };
  },
  async report_work(it: By & { readonly task_type: string; readonly report: WorkReport }) {
    await found(clients, it.actor).reportWork(it.task_type, it.report);
  },
  async snapshot(it: By) {
    const state = await found(clients, it.actor).snapshot();
    return {
      kind: "snapshot",
      holding: state.leases.map((lease) => lease.requestId),
      waiting: state.queue.map((ticket) => ticket.requestId),
      cordoned: state.gpus.filter((gpu) => gpu.cordoned).map((gpu) => gpu.key),
    };
  },
};

type Command = (fields: unknown) => Promise<Facts | undefined> | Facts | undefined;

async function obey(line: string): Promise<void> {
  const { id, op, ...fields } = JSON.parse(line) as { readonly id: number; readonly op: string };
  try {
    const command = (commands as unknown as Readonly<Record<string, Command>>)[op];
    if (command === undefined) {
      throw new Error(`there is no command ${op}`);
    }
    tell({ id, ...((await command(fields)) ?? { kind: "ok" }) });
  } catch (error) {
    tell({ id, ...errorFacts(error) });
  }
}

/** Obeys commands until stdin ends; then gives back what is held. */
for await (const line of createInterface({ input: process.stdin })) {
  void obey(line);
}
for (const work of works.values()) {
  work.finish(false);
}
await Promise.all([...clients.values()].map((client) => client.close()));
