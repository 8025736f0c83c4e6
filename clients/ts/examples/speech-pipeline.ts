/**
 * Speech translation as a pipeline: ASR, SEMANTIC_REPAIR, NMT and TTS, each under a lease of its own.
 *
 * Several calls speak at once. Each utterance goes through the four stages, stages of different utterances overlap, and
 * what is heard in a call comes in the order in which it was said, whichever stages fail, are skipped, or find nothing to
 * do.
 *
 *     gpu-arbiterd serve --set gpus=sim:2x24GiB       # in another terminal
 *     npx tsx speech-pipeline.ts
 *
 * The stages take as long as such models do, and compute nothing: put your own in their place.
 */
import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import {
  GpuArbiterClient,
  type JobResult,
  Pipeline,
  type PipelineSession,
  SkipJob,
  type Stage,
  type StageResult,
  type StageRun,
} from "@gpu-arbiter/client";

const OPTIONS = {
  /** How many calls speak at once. */
  sessions: { type: "string", default: "4" },
  /** How many things they say, all together. */
  utterances: { type: "string", default: "40" },
  /** How many times faster than real models. */
  speed: { type: "string", default: "1" },
  /** How long what was said waits for what was said before it. */
  "hold-back": { type: "string", default: "5s" },
  /** What goes wrong; the same seed, the same troubles. */
  seed: { type: "string", default: "7" },
} as const;

/** Two numbers from 0 to 1 that are the same each time. */
export function rolled(seed: string, stage: string, jobId: string): readonly [number, number] {
  const bytes = createHash("sha256").update(`${seed}/${stage}/${jobId}`).digest();
  return [bytes.readUInt32BE(0) / 2 ** 32, bytes.readUInt32BE(4) / 2 ** 32];
}

/** Stand-ins for the models of the four stages: what each needs, and what is to be done when it cannot be had. */
function stagesOf(seed: string, speed: number): Stage[] {
  /** Takes its time; what it returns decides whether it goes wrong. */
  const compute = async (run: StageRun, least: number, most: number) => {
    const [time, chance] = rolled(seed, run.stage, run.jobId);
    await sleep((least + time * (most - least)) / speed, undefined, { signal: run.signal });
    return chance;
  };
  return [
    {
      name: "ASR",
      lease: { memory: "6GiB", priority: 90, maxWait: "30s" },
      timeout: "60s",
      work: async (audio: string, run) => {
        if ((await compute(run, 80, 150)) < 0.05) {
          throw new SkipJob("silence");
        }
        return `text of ${audio}`;
      },
    },
    {
      // A nicety: left out where there is no GPU for it soon, or where it fails.
      name: "SEMANTIC_REPAIR",
      lease: { memory: "4GiB", priority: 20, busyPolicy: "SKIP", maxWait: "400ms" },
      onFailure: "skip",
      work: async (text: string, run) => {
        if ((await compute(run, 40, 80)) < 0.1) {
          throw new Error("the language model answered nonsense");
        }
        return `repaired ${text}`;
      },
    },
    {
      name: "NMT",
      lease: { memory: "4GiB", priority: 80, maxWait: "30s" },
      timeout: "60s",
      work: async (text: string, run) => {
        if ((await compute(run, 30, 60)) < 0.05) {
          throw new Error("no such language");
        }
        return `translation of ${text}`;
      },
    },
    {
      name: "TTS",
      lease: { memory: "3GiB", priority: 70, maxWait: "30s" },
      timeout: "60s",
      work: async (text: string, run) => {
        await compute(run, 80, 150);
        return `audio of ${text}`;
      },
    },
  ];
}

/** Somebody speaks. */
async function call(session: PipelineSession, utterances: number): Promise<void> {
  for (let number = 0; number < utterances; number++) {
    await session.submit(`utterance ${number}`);
  }
  await session.end();
}

/** Runs all calls, and says how it went. */
export async function main(args: string[], say: (line: string) => void): Promise<void> {
  const told = parseArgs({ args, options: OPTIONS }).values;
  const [sessions, utterances] = [Number(told.sessions), Number(told.utterances)];

  /** What is heard; here, what is printed. */
  const hear = (result: JobResult) => {
    const leftOut = result.stages.filter((stage) => stage.state === "skipped").map((stage) => stage.stage);
    const facts = [result.sessionId, result.utteranceIndex, result.state, leftOut.join(",") || "-", result.value];
    say(`${facts.join(" ")}${result.late ? " late" : ""}`);
  };
  /** A stage failed, whatever that meant for its utterance. */
  const complain = (result: StageResult) => {
    process.stderr.write(`${result.sessionId}/${result.utteranceIndex} ${result.stage}: ${result.error}\n`);
  };

  await using client = new GpuArbiterClient();
  await using pipeline = new Pipeline(client, stagesOf(told.seed, Number(told.speed)), {
    holdBack: told["hold-back"],
    maxInFlight: 16,
    onFailure: complain,
  });
  const calls = Array.from({ length: sessions }, (_, number) => {
    const share = Math.ceil((utterances - number) / sessions);
    return call(pipeline.session(`call-${number}`, { onResult: hear }), share);
  });
  await Promise.all(calls);
  const { done, skipped, failed, late, stages } = pipeline.statistics();
  say(`${done} done, ${skipped} skipped, ${failed} failed, ${late} late`);
  for (const [name, stage] of Object.entries(stages)) {
    const runs = Math.max(1, stage.done + stage.skipped + stage.failed);
    const times = `${(stage.waitedMs / runs).toFixed()} ms of waiting, ${(stage.ranMs / runs).toFixed()} ms of work`;
    say(`${name}: ${stage.done} done, ${stage.skipped} skipped, ${stage.failed} failed; on average ${times}`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(process.argv.slice(2), (line) => void process.stdout.write(`${line}\n`));
}
