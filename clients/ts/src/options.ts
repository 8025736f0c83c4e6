/**
 * What a request for a lease can ask for, and its message.
 *
 * Law: pure; what cannot be said in the contract is a RangeError or TypeError here, before anything is sent. What the
 * caller left out stays unset: the arbiter's policy decides it.
 */
import { randomUUID } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { type AcquireRequest, AcquireRequestSchema } from "./gen/gpuarbiter/v1/gpu_arbiter_pb.js";
import {
  BusyPolicy,
  Placement,
  Sharing,
  type WorkContext as WorkContextMessage,
  WorkContextSchema,
  WorkDevice,
  type WorkReport as WorkReportMessage,
  WorkReportSchema,
  WorkResult,
} from "./gen/gpuarbiter/v1/lease_pb.js";
import { type Duration, durationMessage, parseBytes, parseDuration, type Size } from "./units.js";
import type { BusyPolicyName, PlacementName, WorkContext, WorkReport } from "./values.js";

/** What fields of the contract hold. */
export const INT32: number = 2 ** 31 - 1;
export const UINT32: number = 2 ** 32 - 1;

/** Everything that the arbiter is asked for. What is left out, the policy of the task type decides. */
export interface RequestOptions {
  /** Peak device memory per GPU, what is loaded already included: bytes, or "6GiB". */
  readonly memory?: Size | undefined;
  /** How many distinct GPUs, all together or not at all; 1 unless told. */
  readonly count?: number | undefined;
  /** Keys ("gpu:0"), indices ("0") or UUIDs of the GPUs it may run on; empty: any. */
  readonly gpus?: string | readonly string[] | undefined;
  /** true: beside other shared leases; false: alone on each GPU. */
  readonly shared?: boolean | undefined;
  /** 0 to 100, higher first. */
  readonly priority?: number | undefined;
  /** How long to wait for a grant; 0: not at all. */
  readonly maxWait?: Duration | undefined;
  /** How long the lease is meant to be held; 0: without limit. */
  readonly maxHold?: Duration | undefined;
  /** The lease outlives a broken line for so long; renewed in the background. */
  readonly ttl?: Duration | undefined;
  /** The lease lives by its ttl and its renewals alone, without a stream; needs `ttl`. */
  readonly detached?: boolean | undefined;
  /** What to do when no GPU can be had at once. */
  readonly busyPolicy?: BusyPolicyName | undefined;
  /** How GPUs are picked. */
  readonly placement?: PlacementName | undefined;
  /** What this process holds on the GPU already, where the arbiter cannot see its pid. */
  readonly resident?: Size | undefined;
  /** Granted after the lower indices of the group. */
  readonly sequence?: { readonly group: string; readonly index: number } | undefined;
  /** Who and what the lease belongs to, for logs and traces. */
  readonly context?: WorkContext | undefined;
  /** The idempotency key, at most 64 characters; a fresh UUID unless told. */
  readonly requestId?: string | undefined;
}

/** The W3C headers of the caller's span; empty where there is none. */
export interface TraceContext {
  readonly traceparent: string;
  readonly tracestate: string;
}

/** The request; its holder is that of the session. */
export function acquireRequest(taskType: string, options: RequestOptions, trace: TraceContext): AcquireRequest {
  const ttl = options.ttl === undefined ? 0 : parseDuration(options.ttl);
  if (options.detached && ttl === 0) {
    throw new RangeError("detached needs a ttl: nothing else would end the lease");
  }
  const { sequence, context } = options;
  return create(AcquireRequestSchema, {
    requestId: text("requestId", options.requestId || randomUUID()),
    taskType: text("taskType", taskType),
    gpu: {
      candidates: gpuNames(options.gpus),
      count: whole("count", options.count ?? 1, UINT32),
      memoryBytes: parseBytes(options.memory ?? 0),
      sharing: sharingOf(options.shared),
      placement: numberOf(Placement, options.placement),
      residentBytes: parseBytes(options.resident ?? 0),
    },
    ...(options.priority === undefined ? {} : { priority: whole("priority", options.priority, INT32) }),
    busyPolicy: numberOf(BusyPolicy, options.busyPolicy),
    ...set("maxWait", durationMessage(options.maxWait)),
    ...set("maxHold", durationMessage(options.maxHold)),
    ...set("ttl", durationMessage(options.ttl)),
    detached: options.detached ?? false,
    ...(sequence === undefined
      ? {}
      : { sequence: { group: sequence.group, index: BigInt(whole("sequence.index", sequence.index)) } }),
    ...set("context", context === undefined ? undefined : workContext(context)),
    traceparent: trace.traceparent,
    tracestate: trace.tracestate,
  });
}

/** The WorkContext message. */
export function workContext(context: WorkContext): WorkContextMessage {
  const index = context.utteranceIndex;
  return create(WorkContextSchema, {
    jobId: context.jobId ?? "",
    sessionId: context.sessionId ?? "",
    ...(index === undefined ? {} : { utteranceIndex: BigInt(whole("utteranceIndex", index)) }),
    stage: context.stage ?? "",
    attributes: { ...context.attributes },
  });
}

/** The WorkReport message. */
export function workReport(report: WorkReport): WorkReportMessage {
  return create(WorkReportSchema, {
    result: numberOf(WorkResult, report.result ?? "OK"),
    device: numberOf(WorkDevice, report.device ?? "GPU"),
    workItems: BigInt(whole("workItems", report.workItems ?? 0)),
    peakMemoryBytes: parseBytes(report.peakMemory ?? 0),
    ...set("duration", durationMessage(report.duration)),
  });
}

/** Shared, exclusive, or for undefined whatever the policy (or the lease) says. */
export function sharingOf(shared: boolean | undefined): Sharing {
  if (shared !== undefined && typeof shared !== "boolean") {
    throw new TypeError(`shared is ${String(shared)}; write true or false`);
  }
  return shared === undefined ? Sharing.UNSPECIFIED : shared ? Sharing.SHARED : Sharing.EXCLUSIVE;
}

/** An optional field, for a message: left out when there is nothing to say. */
export function set<K extends string, T>(name: K, value: T | undefined): { [P in K]?: T } {
  return (value === undefined ? {} : { [name]: value }) as { [P in K]?: T };
}

/** The names of GPUs, for a message. */
export function gpuNames(gpus: string | readonly string[] | undefined): string[] {
  const names = typeof gpus === "string" ? [gpus] : (gpus ?? []);
  if (!Array.isArray(names)) {
    throw new TypeError(`gpus is ${String(gpus)}; write "gpu:0", or a list of such names`);
  }
  return names.map((name) => text("each of gpus", name));
}

/** A whole number from 0 on, for a message. */
export function whole(name: string, value: number, most: number = Number.MAX_SAFE_INTEGER): number {
  if (typeof value !== "number") {
    throw new TypeError(`${name} is ${String(value)}; write a whole number`);
  }
  if (!Number.isSafeInteger(value) || value < 0 || value > most) {
    throw new RangeError(`${name} is ${value}; write a whole number from 0 to ${most}`);
  }
  return value;
}

/** Refuses what is to be called, and cannot be. */
export function refuseOthers(callables: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(callables)) {
    if (value !== undefined && typeof value !== "function") {
      throw new TypeError(`${name} is ${String(value)}; write a function`);
    }
  }
}

/** A string, for a message. */
export function text(name: string, value: string): string {
  if (typeof value !== "string") {
    throw new TypeError(`${name} is ${String(value)}; write a string`);
  }
  return value;
}

/** The number behind a name without its prefix ("SKIP"); undefined is the unspecified one. */
function numberOf<E extends Record<string, string | number>>(names: E, name: string | undefined): number {
  if (name === undefined) {
    return 0;
  }
  const number = Object.hasOwn(names, name) && name !== "UNSPECIFIED" ? names[name] : undefined;
  if (typeof number !== "number") {
    const allowed = Object.keys(names).filter((each) => /^[A-Z]/.test(each) && each !== "UNSPECIFIED");
    throw new RangeError(`${JSON.stringify(name)} is not allowed; write one of ${allowed.join(", ")}`);
  }
  return number;
}
