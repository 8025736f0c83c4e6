/** What operators can ask of the arbiter; needs the admin role where roles are configured. */
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { answered, streamed } from "./calls.js";
import type { GetConfigResponse, ListEventsResponse, UpdateConfigResponse } from "./gen/gpuarbiter/v1/admin_pb.js";
import type { Abortable } from "./lease.js";
import { gpuNames, set, UINT32, whole } from "./options.js";
import type { Source } from "./settings.js";
import { type Duration, durationMessage } from "./units.js";

/** Which GPUs: some by key, index or UUID, or all; one of the two is needed. */
export type Gpus = { readonly gpus: string | readonly string[] } | { readonly all: true };

/** Which events. */
export interface EventOptions extends Abortable {
  /** Only those after this one: the way to go on after a break. */
  readonly afterSequence?: bigint | undefined;
  readonly since?: Date | undefined;
  /** Goes on with the new ones as they happen. */
  readonly follow?: boolean | undefined;
  /** At most so many; all unless told. */
  readonly limit?: number | undefined;
}

/** The operator's calls; `GpuArbiterClient.admin`. Each throws an ArbiterError when it fails. */
export class Admin {
  readonly #source: Source;

  constructor(source: Source) {
    this.#source = source;
  }

  /** Cordons GPUs: requests wait. With `grace`, their holders are asked to yield. How many leases are left there. */
  async drain(
    options: Gpus & Abortable & { readonly reason?: string | undefined; readonly grace?: Duration | undefined },
  ): Promise<number> {
    const request = {
      ...which(options),
      reason: options.reason ?? "",
      ...set("grace", durationMessage(options.grace)),
    };
    const { leasesLeft } = await answered(this.#source, ({ admin }, how) => admin.drain(request, how), options.signal);
    return leasesLeft;
  }

  /** Takes a drain back. */
  async resume(options: Gpus & Abortable): Promise<void> {
    await answered(this.#source, ({ admin }, how) => admin.resume(which(options), how), options.signal);
  }

  /** Asks the holder to yield, and ends the lease when the grace period is over; without one at once. */
  async revoke(
    leaseId: string,
    options: Abortable & { readonly grace?: Duration | undefined; readonly reason?: string | undefined } = {},
  ): Promise<void> {
    const request = { leaseId, reason: options.reason ?? "", ...set("grace", durationMessage(options.grace)) };
    await answered(this.#source, ({ admin }, how) => admin.revoke(request, how), options.signal);
  }

  /** The configuration in force, as YAML, and its revision. */
  getConfig(options: Abortable = {}): Promise<GetConfigResponse> {
    return answered(this.#source, ({ admin }, how) => admin.getConfig({}, how), options.signal);
  }

  /** Applies a YAML merge patch as a whole, or refuses it as a whole; with `revision`, only if it is still that. */
  updateConfig(
    patchYaml: string,
    options: Abortable & { readonly revision?: bigint | undefined; readonly dryRun?: boolean | undefined } = {},
  ): Promise<UpdateConfigResponse> {
    const request = { patchYaml, dryRun: options.dryRun ?? false, ...set("revision", options.revision) };
    return answered(this.#source, ({ admin }, how) => admin.updateConfig(request, how), options.signal);
  }

  /** Past events, oldest first, and with `follow` the new ones as they happen. */
  events(options: EventOptions = {}): AsyncIterable<ListEventsResponse> {
    const request = {
      afterSequence: options.afterSequence ?? 0n,
      ...set("since", options.since === undefined ? undefined : timestampFromDate(options.since)),
      follow: options.follow ?? false,
      limit: whole("limit", options.limit ?? 0, UINT32),
    };
    return streamed(this.#source, ({ admin }, how) => admin.listEvents(request, how), options.signal);
  }
}

function which(options: Gpus): { gpus: string[]; all: boolean } {
  return "all" in options ? { gpus: [], all: options.all } : { gpus: gpuNames(options.gpus), all: false };
}
