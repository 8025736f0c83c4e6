/** A pipeline in virtual time, with leases of a stand-in: figures are exact. */
import { AsyncLocalStorage } from "node:async_hooks";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { dice } from "../../spec/support/dice.js";
import { LeaseSource, skipped, toCpu } from "../../spec/support/lease-source.js";
import {
  FallbackToCpu,
  type JobResult,
  LeaseLost,
  Pipeline,
  PipelineClosed,
  type PipelineOptions,
  QueueFull,
  SkipJob,
  Skipped,
  type Stage,
  type StageResult,
  type StageRun,
  type Work,
} from "../index.js";
import type { Logger } from "../logger.js";
import { sleep } from "../waiting.js";
import { Places } from "./places.js";

let began: number;
beforeEach(() => {
  vi.useFakeTimers();
  began = performance.now();
});
afterEach(() => {
  vi.useRealTimers();
});

/** Milliseconds since the test began. */
const now = () => performance.now() - began;

/** Lets time pass until it is done. */
async function run<T>(main: Promise<T>): Promise<T> {
  let over = false;
  const finish = () => {
    over = true;
  };
  main.then(finish, finish);
  while (!over) {
    await vi.advanceTimersToNextTimerAsync();
  }
  return await main;
}

/** Work that takes so long, and adds its stage's name to what it is given. */
function taking(ms: number, log: unknown[] = []): Work {
  return async (value: string, { stage, utteranceIndex, signal }: StageRun) => {
    const since = now();
    await sleep(ms, signal);
    log.push(`${stage} ${utteranceIndex} ${since}-${now()}`);
    return `${value}>${stage}`;
  };
}

function throwing(error: unknown): Work {
  return () => {
    throw error;
  };
}

function declined(detail: string) {
  return { detail, reason: "GPU_BUSY", waitedMs: 0, retryAfterMs: undefined, blockers: [] } as const;
}

class Notes implements Logger {
  readonly said: string[] = [];
  readonly debug = () => {};
  readonly info = () => {};
  readonly warn = (message: string) => void this.said.push(message);
  readonly error = this.warn;
}

/** One job through these stages, and what came of it. */
async function only(stages: readonly Stage[], options: PipelineOptions = {}, source = new LeaseSource()) {
  const pipeline = new Pipeline(source, stages, options);
  const job = await pipeline.session("s").submit("u");
  await run(pipeline.close());
  return { result: await job.result, pipeline };
}

test("stages of different jobs overlap", async () => {
  const log: string[] = [];
  const stages = ["ASR", "TTS"].map((name) => ({ name, work: taking(2, log), concurrency: 1 }));
  const pipeline = new Pipeline(new LeaseSource(2), stages);
  const session = pipeline.session("s");
  const jobs = [await session.submit("u0"), await session.submit("u1"), await session.submit("u2")];
  expect(jobs.map((job) => job.state)).toEqual(["running", "pending", "pending"]);
  const results = await run(Promise.all(jobs.map((job) => job.result)));
  expect(results.map(({ value, state }) => `${value} ${state}`)).toEqual([0, 1, 2].map((n) => `u${n}>ASR>TTS done`));
  expect(now()).toBe(8);
  expect(log.sort()).toEqual(["ASR 0 0-2", "ASR 1 2-4", "ASR 2 4-6", "TTS 0 2-4", "TTS 1 4-6", "TTS 2 6-8"]);
  await run(pipeline.close());
});

test("where leases cost nothing, the GPUs are never idle", async () => {
  const roll = dice(5);
  const between: Record<string, readonly [number, number]> = {
    ASR: [80, 150],
    SEMANTIC_REPAIR: [40, 80],
    NMT: [30, 60],
    TTS: [80, 150],
  };
  let total = 0;
  const work = async (value: Record<string, number>, { stage }: StageRun) => {
    await sleep(value[stage] ?? 0);
    return value;
  };
  const stages = Object.keys(between).map((name) => ({ name, work }));
  const pipeline = new Pipeline(new LeaseSource(2), stages, { maxInFlight: 16, holdBack: null });
  const sessions = Array.from({ length: 8 }, (_, number) => pipeline.session(`call-${number}`));
  const all = async () => {
    for (let number = 0; number < 200; number++) {
      const times = Object.entries(between).map(([stage, [least, most]]) => {
        const ms = Math.round(least + roll.next() * (most - least));
        total += ms;
        return [stage, ms];
      });
      await sessions[number % 8]?.submit(Object.fromEntries(times));
    }
    await pipeline.close();
  };
  await run(all());
  // All but the very end, when one utterance is left.
  expect(now()).toBeGreaterThanOrEqual(total / 2);
  expect(now()).toBeLessThanOrEqual((total / 2) * 1.01);
});

test("each run has a lease that says whose it is", async () => {
  const source = new LeaseSource();
  const seen: StageRun[] = [];
  const work: Work = (value, told) => {
    seen.push(told);
    return value;
  };
  const stages: Stage[] = [
    { name: "REPAIR", work, taskType: "LLM", lease: { memory: "2GiB", priority: 20 } },
    { name: "NMT", work, taskType: "LLM", sequenced: false },
  ];
  const pipeline = new Pipeline(source, stages);
  const session = pipeline.session("call-7");
  const job = await session.submit("text", { utteranceIndex: 4 });
  await run(session.end());
  expect((await job.result).value).toBe("text");
  expect(seen).toMatchObject([
    { jobId: "call-7/4", stage: "REPAIR", lease: { taskType: "LLM" } },
    { jobId: "call-7/4", stage: "NMT", sessionId: "call-7", utteranceIndex: 4 },
  ]);
  expect(source.asked).toMatchObject([
    {
      taskType: "LLM",
      options: {
        memory: "2GiB",
        priority: 20,
        sequence: { group: expect.stringMatching(/^[0-9a-f]{8}\/REPAIR\/call-7$/), index: 4 },
        context: { jobId: "call-7/4", sessionId: "call-7", utteranceIndex: 4, stage: "REPAIR" },
      },
    },
    { taskType: "LLM" },
  ]);
  expect(source.asked[1]?.options.sequence).toBeUndefined();
});

test("work and callbacks run where their job was submitted and their session opened", async () => {
  const span = new AsyncLocalStorage<string>();
  const seen: string[] = [];
  const failing: Work = async (_value, { stage, utteranceIndex }) => {
    seen.push(`${stage} ${utteranceIndex} in ${span.getStore()}`);
    await sleep(1);
    throw new Error("no");
  };
  const stages = ["ASR", "NMT"].map((name) => ({ name, work: failing, concurrency: 1, onFailure: "skip" as const }));
  const onFailure = (result: StageResult) =>
    seen.push(`${result.stage} ${result.utteranceIndex} told in ${span.getStore()}`);
  const onResult = (result: JobResult) => seen.push(`${result.utteranceIndex} out in ${span.getStore()}`);
  const pipeline = new Pipeline(new LeaseSource(), stages, { onFailure });
  const session = span.run("session", () => pipeline.session("s", { onResult }));
  for (const number of [0, 1]) {
    await span.run(`submit ${number}`, () => session.submit("u"));
  }
  await run(pipeline.close());
  expect(seen.sort()).toEqual([
    "0 out in session",
    "1 out in session",
    ...["ASR", "NMT"].flatMap((stage) =>
      [0, 1].flatMap((number) => ["", "told "].map((told) => `${stage} ${number} ${told}in submit ${number}`)),
    ),
  ]);
});

test("the group of a long name fits into the contract", async () => {
  const source = new LeaseSource();
  const pipeline = new Pipeline(source, [{ name: "ASR", work: taking(1) }]);
  await pipeline.session("x".repeat(200)).submit("");
  await run(pipeline.close());
  expect(source.asked[0]?.options.sequence?.group).toHaveLength(64);
});

test("a stage without a GPU asks for no lease, and what returns nothing passes nothing on", async () => {
  const source = new LeaseSource();
  const work: Work = (value, { stage, lease }) => (stage === "SPLIT" ? lease : [value]);
  const stages = ["SPLIT", "WRAP"].map((name) => ({ name, work, gpu: false }));
  const { result } = await only(stages, {}, source);
  expect(result).toMatchObject({ state: "done", value: [undefined], stages: [{ device: "" }, { device: "" }] });
  expect(source.asked).toEqual([]);
});

const waiting: Work = async (ms: number) => {
  await sleep(ms);
  return ms;
};

test("results come out in order, and one at a time", async () => {
  const seen: (readonly [number, number])[] = [];
  const onResult = async (result: JobResult) => {
    await sleep(10);
    seen.push([result.utteranceIndex, now()]);
  };
  const pipeline = new Pipeline(new LeaseSource(), [{ name: "ASR", work: waiting, gpu: false, concurrency: 3 }]);
  const session = pipeline.session("s", { onResult });
  const jobs = [await session.submit(3), await session.submit(2), await session.submit(1)];
  const results = await run(Promise.all(jobs.map((job) => job.result)));
  expect(now()).toBe(3);
  expect(results.map((result) => result.heldBackMs)).toEqual([0, 1, 2]);
  await run(pipeline.close());
  expect(seen).toEqual([
    [0, 13],
    [1, 23],
    [2, 33],
  ]);
});

test("a late result holds back the others for so long and no longer", async () => {
  const seen: unknown[] = [];
  const onResult = (result: JobResult) => seen.push([result.utteranceIndex, result.late, now()]);
  const stages = [{ name: "ASR", work: waiting, gpu: false, concurrency: 3 }];
  const pipeline = new Pipeline(new LeaseSource(), stages, { holdBack: "1500ms" });
  const session = pipeline.session("s", { onResult });
  for (const ms of [1_000, 9_000, 2_000]) {
    await session.submit(ms);
  }
  await vi.advanceTimersByTimeAsync(3_000);
  expect(pipeline.statistics()).toMatchObject({ inFlight: 2, heldBack: 1 });
  await run(pipeline.close());
  expect(seen).toEqual([
    [0, false, 1_000],
    [2, false, 3_500],
    [1, true, 9_000],
  ]);
  expect(pipeline.statistics().late).toBe(1);
});

test.each([
  { onFailure: "fail", state: "failed", value: undefined },
  { onFailure: "skip", state: "done", value: "u>NMT" },
] as const)("what a failing stage means is its policy: $onFailure", async ({ onFailure, state, value }) => {
  const failures: StageResult[] = [];
  const error = new Error("no model");
  const stages: Stage[] = [
    { name: "ASR", work: throwing(error), onFailure },
    { name: "NMT", work: taking(1) },
  ];
  const { result, pipeline } = await only(stages, { onFailure: (each) => failures.push(each) });
  expect(result).toMatchObject({ state, value, error: state === "failed" ? error : undefined });
  const stageState = state === "failed" ? "failed" : "skipped";
  expect(failures).toMatchObject([{ stage: "ASR", cause: "FAILED", error, state: stageState }]);
  expect(pipeline.statistics().stages["ASR"]).toMatchObject({ done: 0, [stageState]: 1 });
});

test("a lease that cannot be had is a failure of the stage", async () => {
  const source = new LeaseSource();
  const error = new QueueFull("full");
  source.answers["ASR"] = [error];
  const { result } = await only([{ name: "ASR", work: taking(1) }], {}, source);
  expect(result).toMatchObject({ state: "failed", cause: "FAILED", error, stages: [{ device: "" }] });
});

describe.each([
  { answer: "SKIP", decline: skipped(new Skipped(declined("busy"))) },
  { answer: "FALLBACK_CPU", decline: toCpu(new FallbackToCpu(declined("busy"))) },
])("declined by $answer", ({ decline }) => {
  test.each([
    { onDecline: "skip", state: "done", value: "u>NMT" },
    { onDecline: "fail", state: "failed", value: undefined },
  ] as const)("what that means is the stage's policy: $onDecline", async ({ onDecline, state, value }) => {
    const source = new LeaseSource();
    source.answers["SEMANTIC_REPAIR"] = [decline];
    const skips: StageResult[] = [];
    const logger = new Notes();
    const onSkip = (each: StageResult) => {
      skips.push(each);
      throw new Error("a callback's own trouble");
    };
    const stages: Stage[] = [
      { name: "SEMANTIC_REPAIR", work: taking(1), onDecline },
      { name: "NMT", work: taking(1) },
    ];
    const { result } = await only(stages, { onSkip, logger }, source);
    expect(result).toMatchObject({ state, value });
    expect(skips).toMatchObject([{ stage: "SEMANTIC_REPAIR", cause: "DECLINED", error: { message: "busy" } }]);
    expect(logger.said).toEqual(["the callback about SEMANTIC_REPAIR threw: Error: a callback's own trouble"]);
  });
});

test("a decline that the work itself throws is its failure", async () => {
  const { result } = await only([{ name: "ASR", work: throwing(new Skipped(declined("inner"))) }]);
  expect(result.cause).toBe("FAILED");
});

test("the CPU does it where the arbiter says so", async () => {
  const source = new LeaseSource();
  source.answers["ASR"] = [toCpu(new FallbackToCpu(declined("busy")))];
  const onCpu: Work = (value: string, { lease }) => `${value} by cpu, ${lease}`;
  const pipeline = new Pipeline(source, [{ name: "ASR", work: taking(1), onCpu }]);
  const session = pipeline.session("s");
  const jobs = [await session.submit("u"), await session.submit("u")];
  const results = await run(Promise.all(jobs.map((job) => job.result)));
  expect(results).toMatchObject([
    { value: "u by cpu, undefined", stages: [{ device: "CPU" }] },
    { value: "u>ASR", stages: [{ device: "GPU" }] },
  ]);
});

test("work that takes too long is aborted, and its lease given back", async () => {
  const source = new LeaseSource(1);
  const timeouts: StageResult[] = [];
  const stages = [
    { name: "ASR", work: taking(60_000), timeout: "2s" },
    { name: "NMT", work: taking(1) },
  ];
  const pipeline = new Pipeline(source, stages, { onTimeout: (each) => timeouts.push(each) });
  const jobs = [await pipeline.session("s").submit("u"), await pipeline.session("t").submit("v")];
  const results = await run(Promise.all(jobs.map((job) => job.result)));
  expect(now()).toBe(2_000);
  expect(results).toMatchObject([{ error: { name: "StageTimeout" } }, { error: { name: "StageTimeout" } }]);
  await run(pipeline.close());
  // The second never got the GPU.
  expect(timeouts).toMatchObject([
    { cause: "TIMED_OUT", device: "GPU" },
    { cause: "TIMED_OUT", device: "" },
  ]);
  expect(source.held.size).toBe(0);
});

test("a stage may be skipped when it takes too long", async () => {
  const stages: Stage[] = [
    { name: "ASR", work: taking(60_000), timeout: 2, onTimeout: "skip" },
    { name: "NMT", work: taking(1) },
  ];
  const { result } = await only(stages);
  expect(result.value).toBe("u>NMT");
  expect(now()).toBe(3);
});

test.each([false, true])(
  "work whose lease is lost is aborted, and what it makes does not count (it goes on: %s)",
  async (stubborn) => {
    const source = new LeaseSource();
    source.onGranted = (lease) => void setTimeout(() => lease.lose(), 1);
    const work: Work = async (value: string, { signal }) => {
      await sleep(60_000, signal).catch((reason: unknown) => {
        if (!stubborn) {
          throw reason;
        }
      });
      return value;
    };
    const { result } = await only([{ name: "ASR", work }], {}, source);
    expect(now()).toBe(1);
    expect(result.error).toBeInstanceOf(LeaseLost);
    expect(result).toMatchObject({ state: "failed", cause: "FAILED", error: { reason: "REVOKED" } });
  },
);

test("what there is nothing to do for is skipped", async () => {
  const skips: StageResult[] = [];
  const stages = [
    { name: "ASR", work: throwing(new SkipJob("silence")) },
    { name: "NMT", work: taking(1) },
  ];
  const { result, pipeline } = await only(stages, { onSkip: (each) => skips.push(each) });
  expect(result).toMatchObject({ state: "skipped", cause: "SKIPPED", error: { message: "silence", name: "SkipJob" } });
  expect(skips).toMatchObject([{ stage: "ASR", state: "skipped" }]);
  expect(pipeline.statistics().skipped).toBe(1);
});

test("a job, a session and all can be cancelled", async () => {
  const source = new LeaseSource(2);
  const pipeline = new Pipeline(source, [{ name: "ASR", work: taking(5), concurrency: 2 }], { holdBack: null });
  const [one, other] = [pipeline.session("one"), pipeline.session("other")];
  const a = await one.submit("u");
  const b = await other.submit("u");
  const c = await one.submit("u");
  const d = await other.submit("u");
  expect(a.stages).toEqual({ ASR: "running" });
  expect(c.cancel()).toBe(true);
  expect(c.cancel()).toBe(false);
  expect(c.state).toBe("failed");
  await vi.advanceTimersByTimeAsync(1);
  expect(one.cancel()).toBe(1);
  const cancelled = { cause: "CANCELLED", error: { name: "JobCancelled" } };
  expect(await Promise.all([a.result, c.result])).toMatchObject([cancelled, cancelled]);
  expect(pipeline.cancel()).toBe(2);
  expect(await Promise.all([b.result, d.result])).toMatchObject([cancelled, cancelled]);
  expect(now()).toBe(1);
  const e = await one.submit("u");
  expect((await run(e.result)).state).toBe("done");
  expect(e).toMatchObject({ sessionId: "one", utteranceIndex: 2, stages: { ASR: "done" } });
  await run(pipeline.close());
  expect(source.held.size).toBe(0);
});

test("submitting waits while as many as may be are in flight", async () => {
  const stages = [{ name: "ASR", work: taking(1), gpu: false, concurrency: 9 }];
  const pipeline = new Pipeline(new LeaseSource(), stages, { maxInFlight: 3, maxInFlightPerSession: 2 });
  const [slow, quick] = [pipeline.session("slow", { onResult: () => sleep(10) }), pipeline.session("quick")];
  await slow.submit("u");
  await slow.submit("u");
  const third = slow.submit("u");
  await quick.submit("u");
  expect(now()).toBe(0);
  expect(await run(quick.submit("u").then(now))).toBe(1);
  expect(await run(third.then(now))).toBe(11);
  await run(pipeline.close());
});

test("who gives up submitting leaves the place to the next", async () => {
  const places = new Places(1);
  const giving = new AbortController();
  await places.take();
  const leaving = places.take(giving.signal);
  const staying = places.take();
  giving.abort(new Error("enough"));
  await expect(leaving).rejects.toThrow("enough");
  places.giveBack();
  await staying;
  places.giveBack();
  await places.take();
  await expect(places.take(giving.signal)).rejects.toThrow("enough");
});

test("closing does what is there, and takes nothing more", async () => {
  const stages = [{ name: "ASR", work: taking(2), gpu: false, concurrency: 1 }];
  const pipeline = new Pipeline(new LeaseSource(), stages, { maxInFlight: 2, holdBack: null });
  const session = pipeline.session("s");
  const jobs = [await session.submit("u"), await session.submit("u", { utteranceIndex: 5 })];
  const refused = expect(session.submit("u")).rejects.toThrow(PipelineClosed);
  await run(pipeline.close());
  await refused;
  expect(now()).toBe(4);
  expect(await Promise.all(jobs.map((job) => job.result))).toMatchObject([{ state: "done" }, { state: "done" }]);
  await expect(session.submit("u")).rejects.toThrow(PipelineClosed);
  expect(() => pipeline.session("t")).toThrow(PipelineClosed);
  await pipeline.close();
});

test("closing without draining cancels, and waits for leases to be back", async () => {
  const source = new LeaseSource();
  const pipeline = new Pipeline(source, [{ name: "ASR", work: taking(60_000) }]);
  const session = pipeline.session("s");
  const jobs = await Promise.all(Array.from({ length: 5 }, () => session.submit("u")));
  await vi.advanceTimersByTimeAsync(1);
  await run(pipeline.close({ drain: false }));
  expect(now()).toBe(1);
  expect((await Promise.all(jobs.map((job) => job.result))).map((each) => each.cause)).toEqual(
    Array(5).fill("CANCELLED"),
  );
  expect(source.held.size).toBe(0);
});

test("a drain that is given up cancels what is there", async () => {
  const pipeline = new Pipeline(new LeaseSource(), [{ name: "ASR", work: taking(60_000) }]);
  const job = await pipeline.session("s").submit("u");
  const giving = new AbortController();
  setTimeout(() => giving.abort(), 1);
  await run(pipeline.close({ signal: giving.signal }));
  expect((await job.result).cause).toBe("CANCELLED");
  expect(now()).toBe(1);
});

test("leaving a block ends what it is of", async () => {
  const done: string[] = [];
  const block = async () => {
    await using pipeline = new Pipeline(new LeaseSource(), [{ name: "ASR", work: taking(1) }]);
    {
      await using session = pipeline.session("s", { onResult: (each) => done.push(each.state) });
      await session.submit("u");
    }
    expect(done).toEqual(["done"]);
  };
  await run(block());
});

test("work that does not end is left alone", async () => {
  const logger = new Notes();
  const stages = [{ name: "ASR", work: () => sleep(40_000), gpu: false }];
  const pipeline = new Pipeline(new LeaseSource(), stages, { logger });
  const job = await pipeline.session("s").submit("u");
  await run(pipeline.close({ drain: false }));
  expect(now()).toBe(10_000);
  expect((await job.result).cause).toBe("CANCELLED");
  expect(logger.said).toEqual(["work of ASR did not end when told to, and is left alone"]);
  await vi.advanceTimersByTimeAsync(40_000);
});

test("callbacks that throw change nothing", async () => {
  const logger = new Notes();
  const refuse = () => {
    throw new Error("no");
  };
  const stages = [{ name: "ASR", work: throwing(new Error("x")), gpu: false }];
  const pipeline = new Pipeline(new LeaseSource(), stages, { onFailure: () => Promise.reject("no"), logger });
  const session = pipeline.session("s", { onResult: refuse });
  await session.submit("u");
  await session.submit("u");
  await run(pipeline.close());
  expect(pipeline.statistics().failed).toBe(2);
  expect(logger.said.sort()).toEqual([
    "onResult of session s threw: Error: no",
    "onResult of session s threw: Error: no",
    "the callback about ASR threw: no",
    "the callback about ASR threw: no",
  ]);
});

// -- what cannot be asked for ----------------------------------------------------------------------

const work = taking(1);

test.each([
  [{ name: "no spaces" }, "is no name of a stage"],
  [{ name: "" }, "is no name of a stage"],
  [{ work: undefined }, "work of ASR is missing; write a function"],
  [{ onCpu: 3 }, "onCpu of ASR is 3; write a function"],
  [{ concurrency: 0 }, "concurrency of ASR: 0 is not allowed"],
  [{ onFailure: "retry" }, 'onFailure of ASR: retry is not allowed; write "fail" or "skip"'],
  [{ onTimeout: "retry" }, "onTimeout of ASR"],
  [{ onDecline: "retry" }, "onDecline of ASR"],
  [{ timeout: 0 }, "timeout of ASR: 0 leaves no time"],
  [{ timeout: "soon" }, "is not a duration"],
  [{ lease: { sequence: { group: "a", index: 1 } } }, "sequence is said by the pipeline itself"],
  [{ lease: { memory: "6G" } }, '"6G" is not a size'],
  [{ lease: { detached: true } }, "detached needs a ttl"],
  [{ lease: { onLost: 3 } }, "onLost is 3; write a function"],
  [{ gpu: false, lease: { memory: 1 } }, "has gpu: false"],
])("a stage that cannot be is refused where it is written: %j", (wrong, said) => {
  const stage = { name: "ASR", work, ...wrong } as Stage;
  expect(() => new Pipeline(new LeaseSource(), [stage])).toThrow(said);
});

test.each([
  [[], {}, "at least one"],
  [["ASR", "ASR"], {}, "each name once"],
  [["ASR"], { maxInFlight: 0 }, "maxInFlight: 0 is not allowed"],
  [["ASR"], { maxInFlightPerSession: 0.5 }, "maxInFlightPerSession: 0.5 is not allowed"],
  [["ASR"], { holdBack: "-1s" }, "is not a duration"],
  [["ASR"], { onSkip: "log" as unknown as undefined }, "onSkip is log; write a function"],
])("a pipeline that cannot be is refused: %j %j", (names, options, said) => {
  const stages = names.map((name) => ({ name, work }));
  expect(() => new Pipeline(new LeaseSource(), stages, options)).toThrow(said);
});

test("sessions and indices that cannot be are refused, and change nothing", async () => {
  const pipeline = new Pipeline(new LeaseSource(), [{ name: "ASR", work }], {
    maxInFlight: 1,
    maxInFlightPerSession: 1,
  });
  for (const name of ["", "x".repeat(201), "two\nlines"]) {
    expect(() => pipeline.session(name)).toThrow("write 1 to 200 printable characters");
  }
  expect(() => pipeline.session("s", { firstIndex: -1 })).toThrow("firstIndex: -1 is not allowed");
  expect(() => pipeline.session("s", { onResult: "log" as unknown as undefined })).toThrow("onResult is log");
  const session = pipeline.session("s");
  expect(() => pipeline.session("s")).toThrow('session "s" is open already');
  await expect(session.submit("u", { utteranceIndex: -1 })).rejects.toThrow("utteranceIndex: -1 is not allowed");
  const first = await session.submit("u");
  await run(first.result);
  await expect(session.submit("u", { utteranceIndex: 0 })).rejects.toThrow("utteranceIndex 0 is there already");
  await session.submit("u");
  await run(session.end());
  await session.end();
  const again = await pipeline.session("s").submit("u");
  expect((await run(again.result)).utteranceIndex).toBe(0);
  await run(pipeline.close());
});
