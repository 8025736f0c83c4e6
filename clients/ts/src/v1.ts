/** The contract itself: messages, enums and services, as generated. */
export * from "./gen/gpuarbiter/v1/admin_pb.js";
export * from "./gen/gpuarbiter/v1/error_pb.js";
export * from "./gen/gpuarbiter/v1/gpu_arbiter_pb.js";
export * from "./gen/gpuarbiter/v1/lease_pb.js";
export * from "./gen/gpuarbiter/v1/snapshot_pb.js";
