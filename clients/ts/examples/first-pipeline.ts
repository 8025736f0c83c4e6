import { GpuArbiterClient, type JobResult, Pipeline, type Stage, type StageRun } from "@gpu-arbiter/client";

const transcribe = (audio: string, run: StageRun) => `text of ${audio} from ${run.lease?.visibleDevices}`;
const translate = (text: string) => Promise.resolve(`translation of the ${text}`);

const stages: Stage[] = [
  { name: "ASR", work: transcribe, lease: { memory: "6GiB" } },
  { name: "NMT", work: translate, timeout: "10s" },
];

function hear(result: JobResult): void {
  process.stdout.write(`${result.utteranceIndex} ${result.state} ${result.value}\n`);
}

await using client = new GpuArbiterClient();
await using pipeline = new Pipeline(client, stages);
const session = pipeline.session("call-7", { onResult: hear });
for (const audio of ["one", "two", "three"]) {
  await session.submit(audio);
}
await session.end();
