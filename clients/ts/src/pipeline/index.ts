/** Jobs through stages, each stage under a lease of its own; the results of a session come out in order. */
export { Pipeline, type PipelineOptions, type SessionOptions } from "./pipeline.js";
export { Job, PipelineSession, type SubmitOptions } from "./session.js";
export type { OnTrouble, Stage, StageRun, Work } from "./stage.js";
export {
  type Cause,
  type Device,
  JobCancelled,
  type JobResult,
  PipelineClosed,
  type PipelineStatistics,
  SkipJob,
  type StageResult,
  type StageStatistics,
  StageTimeout,
  type State,
} from "./values.js";
