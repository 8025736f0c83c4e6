/** What the arbiter knows, once or as it changes. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { streamed } from "./calls.js";
import { ArbiterUnavailable } from "./errors.js";
import { type SnapshotRequest, SnapshotRequestSchema } from "./gen/gpuarbiter/v1/gpu_arbiter_pb.js";
import type { ArbiterSnapshot } from "./gen/gpuarbiter/v1/snapshot_pb.js";
import { gpuNames, set, UINT32, whole } from "./options.js";
import type { Source } from "./settings.js";
import { timing } from "./timing.js";
import { type Duration, durationMessage } from "./units.js";

/** What a snapshot is to hold. */
export interface SnapshotOptions {
  /** Keys, indices or UUIDs; all unless told. */
  readonly gpus?: string | readonly string[] | undefined;
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
export async function snapshot(source: Source, options: SnapshotOptions): Promise<ArbiterSnapshot> {
  let found: ArbiterSnapshot | undefined;
  // To its end: of a stream that is left early Connect keeps the timer, which keeps the program from ending.
  for await (const state of states(source, requestOf(options, false, undefined), options.signal, timing.callMs)) {
    found = state;
  }
  if (found === undefined) {
    throw new ArbiterUnavailable("the arbiter ended the stream without a snapshot");
  }
  return found;
}

/** The state of the arbiter, and again whenever it changes; ends by an error when the arbiter goes. */
export function watch(source: Source, options: WatchOptions): AsyncGenerator<ArbiterSnapshot, void, undefined> {
  return states(source, requestOf(options, true, options.minInterval), options.signal, undefined);
}

function requestOf(options: SnapshotOptions, watching: boolean, minInterval: Duration | undefined): SnapshotRequest {
  return create(SnapshotRequestSchema, {
    gpus: gpuNames(options.gpus),
    watch: watching,
    ...set("minInterval", durationMessage(minInterval)),
    processes: options.processes ?? false,
    maxTickets: whole("maxTickets", options.maxTickets ?? 0, UINT32),
  } satisfies MessageInitShape<typeof SnapshotRequestSchema>);
}

async function* states(
  source: Source,
  request: SnapshotRequest,
  signal: AbortSignal | undefined,
  timeoutMs: number | undefined,
): AsyncGenerator<ArbiterSnapshot, void, undefined> {
  const replies = streamed(source, ({ client }, how) => client.snapshot(request, how), signal, timeoutMs);
  for await (const { snapshot: state } of replies) {
    if (state !== undefined) {
      yield state;
    }
  }
}
