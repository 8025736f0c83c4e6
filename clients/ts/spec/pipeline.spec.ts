/** The pipeline's examples as they stand, on a real arbiter, and the page that shows one of them. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { main, rolled } from "../examples/speech-pipeline.js";
import { GpuArbiterClient, LeaseLost, Pipeline } from "../src/index.js";
import { sleep } from "../src/waiting.js";
import { Arbiterd } from "./support/arbiterd.js";
import { adminOf } from "./support/looking.js";
import { ROOT } from "./support/places.js";

let arbiter: Arbiterd;
beforeAll(async () => {
  arbiter = await Arbiterd.start("gpus=sim:2x24GiB", "cooldown=0s");
  vi.stubEnv("GPU_ARBITER_ADDRESS", arbiter.address);
});
afterEach(() => void vi.restoreAllMocks());
afterAll(async () => {
  vi.unstubAllEnvs();
  await arbiter[Symbol.asyncDispose]();
});

/** What is written to a stream of this process, instead of there. */
function written(stream: NodeJS.WriteStream): string[] {
  const kept: string[] = [];
  vi.spyOn(stream, "write").mockImplementation((text) => kept.push(String(text).trimEnd()) > 0);
  return kept;
}

test("every session hears everything once and in order, whatever goes wrong", async () => {
  const [sessions, utterances, seed] = [8, 200, "11"];
  const complaints = written(process.stderr);
  const said: string[] = [];
  const amounts = ["--sessions", `${sessions}`, "--utterances", `${utterances}`, "--seed", seed];
  await main([...amounts, "--speed", "10", "--hold-back", "60s"], (line) => said.push(line));

  const goesWrong = (stage: string, jobId: string, chance: number) => rolled(seed, stage, jobId)[1] < chance;
  const states = { done: 0, skipped: 0, failed: 0 };
  const heard: Record<string, number[]> = {};
  for (const line of said.slice(0, utterances)) {
    const [, session = "", index = "", state = "", leftOut = "", value = ""] =
      /^(call-\d) (\d+) (\w+) (\S+) (.*)$/.exec(line) ?? [];
    const jobId = `${session}/${index}`;
    const order = heard[session] ?? [];
    heard[session] = [...order, Number(index)];
    const silent = goesWrong("ASR", jobId, 0.05);
    const wanted = silent ? "skipped" : goesWrong("NMT", jobId, 0.05) ? "failed" : "done";
    const trouble = silent ? "ASR" : goesWrong("SEMANTIC_REPAIR", jobId, 0.1) ? "SEMANTIC_REPAIR" : "-";
    states[wanted] += 1;
    expect(state, line).toBe(wanted);
    // The arbiter declines repairs where both GPUs are busy for too long.
    expect([trouble, "SEMANTIC_REPAIR"], line).toContain(leftOut);
    const repaired = leftOut === "SEMANTIC_REPAIR" ? "" : "repaired ";
    expect(value).toBe(wanted === "done" ? `audio of translation of ${repaired}text of utterance ${index}` : "");
  }
  const all = Array.from({ length: utterances / sessions }, (_, index) => index);
  expect(heard).toEqual(Object.fromEntries(Array.from({ length: sessions }, (_, call) => [`call-${call}`, all])));
  expect(Math.min(...Object.values(states)), "a bit of everything").toBeGreaterThan(0);
  expect(said[utterances]).toBe(`${states.done} done, ${states.skipped} skipped, ${states.failed} failed, 0 late`);
  expect(complaints.filter((each) => each.endsWith("no such language"))).toHaveLength(states.failed);
  await using looking = new GpuArbiterClient();
  expect(await looking.snapshot()).toMatchObject({ leases: [], queueLength: 0 });
}, 60_000);

test("the page's example runs as it stands", async () => {
  const said = written(process.stdout);
  await import("../examples/first-pipeline.js");
  vi.restoreAllMocks();
  expect(said.map((line) => line.replace(/GPU-.*/, "GPU"))).toEqual(
    ["one", "two", "three"].map((word, index) => `${index} done translation of the text of ${word} from GPU`),
  );
  const page = readFileSync(join(ROOT, "docs/pipelines.md"), "utf8");
  const shown = /^```ts\n(.*?)^```$/ms.exec(page)?.[1];
  expect(shown).toBe(readFileSync(join(ROOT, "clients/ts/examples/first-pipeline.ts"), "utf8"));
});

test("work whose lease an operator revokes is aborted, and the next stage of others goes on", async () => {
  written(process.stderr);
  await using client = new GpuArbiterClient();
  const stages = [{ name: "ASR", work: (ms: number, { signal }: { signal: AbortSignal }) => sleep(ms, signal) }];
  await using pipeline = new Pipeline(client, stages);
  const [one, other] = [pipeline.session("one"), pipeline.session("other")];
  const jobs = [await one.submit(60_000), await other.submit(1), await one.submit(1)] as const;
  await jobs[1].result;
  const lease = await vi.waitFor(async () => {
    const { leases } = await client.snapshot();
    const [held] = leases.filter((each) => each.context?.jobId === "one/0");
    expect(held).toBeDefined();
    return held;
  });
  await adminOf(arbiter.address).revoke(lease?.leaseId ?? "");
  const lost = await jobs[0].result;
  expect(lost.error).toBeInstanceOf(LeaseLost);
  expect(lost).toMatchObject({ state: "failed", cause: "FAILED", error: { reason: "OPERATOR" } });
  expect((await jobs[2].result).state).toBe("done");
});
