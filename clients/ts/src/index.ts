/** Leases on the GPUs of one machine. */
export type { Admin, EventOptions, Gpus } from "./admin.js";
export { type ClientOptions, GpuArbiterClient, type LeaseOptions, type LeaseTarget } from "./client.js";
export {
  ConsistencyCheck,
  type ConsistencyCounts,
  type ConsistencyOptions,
  type Mismatch,
} from "./consistency.js";
export {
  ArbiterError,
  ArbiterUnavailable,
  Cancelled,
  ClientLimit,
  Declined,
  FallbackToCpu,
  GpuUnavailable,
  Infeasible,
  InvalidRequest,
  JournalUnavailable,
  LeaseEnded,
  LeaseLost,
  NotPermitted,
  QueueFull,
  RequestIdConflict,
  ResizeRefused,
  ShuttingDown,
  Skipped,
  StaleToken,
  Superseded,
  Unauthenticated,
  UnknownGpu,
  UnknownLease,
  type Violation,
  WaitTimeout,
} from "./errors.js";
export type { ArbiterSnapshot } from "./gen/gpuarbiter/v1/snapshot_pb.js";
export type { Abortable, Lease } from "./lease.js";
export type { Logger } from "./logger.js";
export type { Callbacks } from "./notices.js";
export type { RequestOptions } from "./options.js";
export type { Acquired, Outcome } from "./outcomes.js";
export * from "./pipeline/index.js";
export type { OnUnavailable } from "./settings.js";
export type { SnapshotOptions, WatchOptions } from "./snapshots.js";
export type { Duration, Size } from "./units.js";
export type * from "./values.js";
export { VERSION } from "./version.js";
export { sharedClient, withGpuLease } from "./with-gpu-lease.js";
export type { WorkOptions } from "./work.js";
