/**
 * What the arbiter knows, once or as it changes.
 *
 * Law: over a connection of its own each, so that it neither waits for leases nor is in their way.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { ArbiterUnavailable } from "./errors.js";
import { type SnapshotRequest, SnapshotRequestSchema } from "./gen/gpuarbiter/v1/gpu_arbiter_pb.js";
import type { ArbiterSnapshot } from "./gen/gpuarbiter/v1/snapshot_pb.js";
import { set } from "./options.js";
import type { Target } from "./settings.js";
import { fromConnect } from "./status.js";
import { timing } from "./timing.js";
import { type Duration, durationMessage } from "./units.js";
import { link } from "./waiting.js";
import { openWire } from "./wire.js";

/** What a snapshot is to hold. */
export interface SnapshotOptions {
  /** Keys, indices or UUIDs; all unless told. */
  readonly gpus?: readonly string[] | undefined;
  /** Also the processes that the driver sees on each GPU. */
  readonly processes?: boolean | undefined;
  /** At most so many waiting requests; a hundred unless told. */
  readonly maxTickets?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface WatchOptions extends SnapshotOptions {
  /** The shortest time between two; 250 ms unless told. */
  readonly minInterval?: Duration | undefined;
}

/** The state of the arbiter. */
export async function snapshot(target: Target, options: SnapshotOptions): Promise<ArbiterSnapshot> {
  let found: ArbiterSnapshot | undefined;
  // To its end: of a stream that is left early Connect keeps the timer, which keeps the program from ending.
  for await (const state of states(target, requestOf(options, false, undefined), options.signal, timing.callMs)) {
    found = state;
  }
  if (found === undefined) {
    throw new ArbiterUnavailable("the arbiter ended the stream without a snapshot");
  }
  return found;
}

/** The state of the arbiter, and again whenever it changes; ends by an error when the arbiter goes. */
export function watch(target: Target, options: WatchOptions): AsyncGenerator<ArbiterSnapshot, void, undefined> {
  return states(target, requestOf(options, true, options.minInterval), options.signal, undefined);
}

function requestOf(options: SnapshotOptions, watching: boolean, minInterval: Duration | undefined): SnapshotRequest {
  return create(SnapshotRequestSchema, {
    gpus: [...(options.gpus ?? [])],
    watch: watching,
    ...set("minInterval", durationMessage(minInterval)),
    processes: options.processes ?? false,
    maxTickets: options.maxTickets ?? 0,
  } satisfies MessageInitShape<typeof SnapshotRequestSchema>);
}

async function* states(
  target: Target,
  request: SnapshotRequest,
  signal: AbortSignal | undefined,
  timeoutMs: number | undefined,
): AsyncGenerator<ArbiterSnapshot, void, undefined> {
  const wire = await openWire(target, signal);
  const ended = link(wire.broken, signal);
  try {
    for await (const reply of wire.client.snapshot(request, { signal: ended.signal, ...set("timeoutMs", timeoutMs) })) {
      if (reply.snapshot !== undefined) {
        yield reply.snapshot;
      }
    }
  } catch (thrown) {
    signal?.throwIfAborted();
    throw fromConnect(wire.broken.aborted ? wire.broken.reason : thrown, target.address);
  } finally {
    ended.unlink();
    wire.close();
  }
}
