/** The decisions of a pipeline, in virtual time: whatever happens when, each job comes out once, and in order. */
import { expect, test } from "vitest";
import { type Dice, dice } from "../../spec/support/dice.js";
import type { Effect, End, JobRecord, Run, SessionRecord } from "./records.js";
import { Scheduler } from "./scheduler.js";
import { CheckedStage, type Stage } from "./stage.js";
import type { Cause, JobResult, StageResult } from "./values.js";

const work = (value: unknown) => value;
const DONE: End = { cause: "" };

/** Does what the scheduler wants, with runs that take as long and end as the test says. */
class World {
  now = 0;
  readonly scheduler: Scheduler;
  readonly started: string[] = [];
  readonly aborted: Run[] = [];
  readonly told: StageResult[] = [];
  readonly delivered: JobResult[] = [];
  readonly running = new Set<Run>();

  constructor(stages: readonly [Stage, ...Stage[]], holdBackMs: number | undefined) {
    const [first, ...others] = stages;
    this.scheduler = new Scheduler(
      [new CheckedStage(first), ...others.map((each) => new CheckedStage(each))],
      holdBackMs,
    );
  }

  do(effects: readonly Effect[]): void {
    for (const effect of effects) {
      switch (effect.kind) {
        case "start": {
          const { job, stage } = effect.run;
          this.started.push(`${stage.name} ${job.session.sessionId}${job.index}`);
          this.running.add(effect.run);
          this.onStart(effect.run);
          break;
        }
        case "abort":
          this.aborted.push(effect.run);
          this.onAbort(effect.run);
          break;
        case "tell":
          this.told.push(effect.result);
          break;
        case "deliver":
          this.delivered.push(effect.result);
      }
    }
  }

  onStart(_run: Run): void {}
  onAbort(_run: Run): void {}

  submit(session: SessionRecord, index?: number, value?: unknown): JobRecord {
    const [job, effects] = this.scheduler.submit(session, index, value, this.now);
    this.do(effects);
    return job;
  }

  end(run: Run, end: End = DONE): void {
    this.running.delete(run);
    this.do(this.scheduler.ended(run, end, this.now));
  }

  get out(): string[] {
    return this.delivered.map((each) => `${each.utteranceIndex} ${each.state} ${each.cause}`);
  }
}

function runOf(job: JobRecord): Run {
  if (job.run === undefined) {
    throw new Error("it does not run");
  }
  return job.run;
}

test.each([
  { how: "in sequence", more: {}, started: ["ASR a0", "ASR b0", "ASR a1"] },
  { how: "side by side", more: { sequenced: false }, started: ["ASR a0", "ASR a1", "ASR a2"] },
  { how: "without a GPU", more: { gpu: false }, started: ["ASR a0", "ASR a1", "ASR a2"] },
])("places are taken by the oldest, and in sequence by one of each session: $how", ({ more, started }) => {
  const there = new World([{ name: "ASR", work, concurrency: 2, ...more }], 5);
  const [a, b] = ["a", "b"].map((name) => there.scheduler.open(name, 0)) as [SessionRecord, SessionRecord];
  const jobs = [a, a, a, b].map((session) => there.submit(session));
  there.end(runOf(jobs[0] as JobRecord));
  expect(there.started).toEqual(started);
});

test("within a session the lower goes first, whenever it came", () => {
  const there = new World([{ name: "ASR", work, concurrency: 1 }], 5);
  const session = there.scheduler.open("a", 0);
  const [four, , one] = [4, 3, 1].map((index) => there.submit(session, index)) as [JobRecord, JobRecord, JobRecord];
  there.end(runOf(four));
  there.end(runOf(one));
  expect(there.started).toEqual(["ASR a4", "ASR a1", "ASR a3"]);
});

test("a run that took too long keeps its place until it has ended", () => {
  const asr: Stage = { name: "ASR", work, concurrency: 1, timeout: 2, onTimeout: "skip" };
  const there = new World([asr, { name: "NMT", work, timeout: 9 }], 5);
  const session = there.scheduler.open("a", 0);
  const job = there.submit(session, undefined, "audio");
  const following = there.submit(session);
  const hanging = runOf(job);
  expect(there.scheduler.nextDeadline).toBe(2);
  there.now = 2;
  there.do(there.scheduler.wake(there.now));
  expect(there.aborted).toEqual([hanging]);
  expect(there.started).toEqual(["ASR a0", "NMT a0"]);
  expect(there.scheduler.statistics().stages["ASR"]?.running).toBe(1);
  expect(following.run).toBeUndefined();
  there.end(runOf(job), { cause: "", value: "text" });
  there.now = 3;
  there.end(hanging, { cause: "", value: "too late to count" });
  expect(following.run).toBeDefined();
  expect(there.delivered).toMatchObject([
    {
      value: "text",
      state: "done",
      cause: "",
      stages: [
        { stage: "ASR", state: "skipped", cause: "TIMED_OUT", error: { message: "ASR took longer than 2 ms" } },
        { stage: "NMT", state: "done", cause: "" },
      ],
    },
  ]);
  expect(there.told).toEqual([there.delivered[0]?.stages[0]]);
  expect(there.scheduler.statistics().stages["ASR"]?.timedOut).toBe(1);
});

test("times are told", () => {
  const there = new World([{ name: "ASR", work, concurrency: 1 }], 4);
  const session = there.scheduler.open("a", 0);
  const jobs = [there.submit(session), there.submit(session)] as const;
  for (const [job, began, ended] of [
    [jobs[0], 1, 3],
    [jobs[1], 3.5, 6],
  ] as const) {
    there.scheduler.began(runOf(job), "GPU", began);
    there.now = ended;
    there.end(runOf(job));
  }
  expect(there.delivered.map(({ stages: [stage] }) => [stage?.waitedMs, stage?.ranMs])).toEqual([
    [1, 2],
    [3.5, 2.5],
  ]);
  const figures = { done: 2, waitedMs: 4.5, longestWaitMs: 3.5, ranMs: 4.5, longestRunMs: 2.5 };
  expect(there.scheduler.statistics().stages["ASR"]).toMatchObject(figures);
  expect(there.delivered[1]?.tookMs).toBe(6);
});

test("what waits and what runs is cancelled", () => {
  const there = new World(
    [
      { name: "ASR", work, concurrency: 1 },
      { name: "NMT", work },
    ],
    5,
  );
  const session = there.scheduler.open("a", 0);
  const jobs = [there.submit(session), there.submit(session), there.submit(session)] as const;
  const running = runOf(jobs[0]);
  there.do(there.scheduler.cancel(jobs.slice(0, 2), there.now));
  expect(there.aborted).toEqual([running]);
  expect(there.out).toEqual(["0 failed CANCELLED", "1 failed CANCELLED"]);
  expect(there.told).toEqual([]);
  expect(jobs[2].run).toBeUndefined();
  there.end(running, { cause: "CANCELLED" });
  expect(jobs[2].run).toBeDefined();
  expect(there.scheduler.cancel(jobs.slice(0, 2), there.now)).toEqual([]);
});

test("a job whose work says so is skipped as a whole", () => {
  const there = new World(
    [
      { name: "ASR", work, onFailure: "skip" },
      { name: "NMT", work },
    ],
    5,
  );
  there.end(runOf(there.submit(there.scheduler.open("a", 0))), { cause: "SKIPPED" });
  expect(there.out).toEqual(["0 skipped SKIPPED"]);
  expect(there.told).toMatchObject([{ state: "skipped" }]);
});

test("a session is forgotten once it has ended, and its name is free", () => {
  const there = new World([{ name: "ASR", work }], 5);
  const session = there.scheduler.open("a", 0);
  const job = there.submit(session);
  there.do(there.scheduler.end(session, 0));
  there.end(runOf(job));
  const again = there.scheduler.open("a", 0);
  there.do(there.scheduler.end(session, 0));
  there.submit(again);
  expect(there.scheduler.statistics()).toMatchObject({ done: 1, inFlight: 1 });
});

// -- whatever happens ------------------------------------------------------------------------------

const STAGES = [
  { name: "ASR", work, concurrency: 2, timeout: 3 },
  { name: "SEMANTIC_REPAIR", work, concurrency: 1, timeout: 1.5, onFailure: "skip" },
  { name: "NMT", work, concurrency: 3, timeout: 2, onTimeout: "skip", onDecline: "fail", sequenced: false },
  { name: "TTS", work, concurrency: 2, gpu: false },
] as const satisfies readonly Stage[];
const TIMES = [0, 0.5, 1, 2, 4] as const;
const CAUSES = ["", "", "", "", "FAILED", "DECLINED", "SKIPPED"] as const satisfies readonly Cause[];

interface Plan {
  readonly session: string;
  readonly index: number;
  readonly at: number;
  readonly courses: readonly { readonly takes: number; readonly cause: Cause }[];
  readonly cancelledAfter: number | undefined;
}

function plans(roll: Dice): Plan[] {
  return roll.distinct(10, 21).map((number) => ({
    session: "abc"[number % 3] ?? "a",
    index: Math.floor(number / 3),
    at: roll.pick(TIMES),
    courses: STAGES.map(() => ({ takes: roll.pick(TIMES), cause: roll.pick(CAUSES) })),
    cancelledAfter: roll.pick([undefined, undefined, roll.pick(TIMES)]),
  }));
}

/** A world that lives through plans by itself. Stubborn runs do not end when they are told to. */
class Future extends World {
  readonly sessions: ReadonlyMap<string, SessionRecord>;
  readonly most = new Map<string, number>();
  together = 0;
  readonly #stubborn: boolean;
  readonly #plans = new Map<JobRecord, Plan>();
  readonly #agenda: { readonly at: number; readonly step: () => void }[] = [];

  constructor(holdBackMs: number | undefined, coming: readonly Plan[], stubborn: boolean) {
    super([...STAGES], holdBackMs);
    this.#stubborn = stubborn;
    this.sessions = new Map(["a", "b", "c"].map((name) => [name, this.scheduler.open(name, 0)]));
    for (const plan of coming) {
      this.#at(plan.at, () => this.#come(plan));
    }
  }

  live(): void {
    for (;;) {
      const deadline = this.scheduler.nextDeadline ?? Number.POSITIVE_INFINITY;
      // Stable: what was planned first happens first.
      this.#agenda.sort((one, other) => one.at - other.at);
      const [next] = this.#agenda;
      if (deadline <= (next?.at ?? Number.MAX_VALUE)) {
        this.now = Math.max(this.now, deadline);
        this.do(this.scheduler.wake(this.now));
      } else if (next !== undefined) {
        this.#agenda.shift();
        this.now = Math.max(this.now, next.at);
        next.step();
      } else {
        break;
      }
    }
    for (const session of this.sessions.values()) {
      this.do(this.scheduler.end(session, this.now));
    }
  }

  override onStart(run: Run): void {
    this.#at(this.now + this.#course(run).takes, () => this.#stop(run));
    const busy = [...this.running].filter((each) => each.lane === run.lane).length;
    const ofSession = [...this.running].filter(
      (each) => each.lane === run.lane && each.job.session === run.job.session,
    );
    this.together = Math.max(this.together, run.stage.sequenced && run.stage.gpu ? ofSession.length : 0);
    this.most.set(run.stage.name, Math.max(busy, this.most.get(run.stage.name) ?? 0));
  }

  override onAbort(run: Run): void {
    if (!this.#stubborn) {
      this.#at(this.now, () => this.#stop(run));
    }
  }

  #at(at: number, step: () => void): void {
    this.#agenda.push({ at, step });
  }

  #course(run: Run) {
    const number = STAGES.findIndex((stage) => stage.name === run.stage.name);
    return this.#plans.get(run.job)?.courses[number] ?? { takes: 0, cause: "" as const };
  }

  #come(plan: Plan): void {
    const session = this.sessions.get(plan.session) as SessionRecord;
    const [job, effects] = this.scheduler.submit(session, plan.index, undefined, this.now);
    this.#plans.set(job, plan);
    if (plan.cancelledAfter !== undefined) {
      this.#at(this.now + plan.cancelledAfter, () => this.do(this.scheduler.cancel([job], this.now)));
    }
    this.do(effects);
  }

  #stop(run: Run): void {
    if (this.running.has(run)) {
      this.end(run, { cause: this.#course(run).cause });
    }
  }
}

test("any interleaving delivers each job once and in order", () => {
  for (let seed = 1; seed <= 400; seed++) {
    const roll = dice(seed);
    const coming = plans(roll);
    const holdBackMs = roll.pick([undefined, 0, 1, 3]);
    const there = new Future(holdBackMs, coming, roll.pick([true, false]));
    there.live();
    const named = (each: { readonly sessionId: string; readonly utteranceIndex: number }) =>
      `${each.sessionId}${each.utteranceIndex}`;
    expect(there.delivered.map(named).sort(), `seed ${seed}`).toEqual(
      coming.map((plan) => `${plan.session}${plan.index}`).sort(),
    );
    for (const name of there.sessions.keys()) {
      const inPlace = there.delivered.filter((each) => each.sessionId === name && !each.late);
      const indices = inPlace.map((each) => each.utteranceIndex);
      expect(indices).toEqual([...indices].sort((one, other) => one - other));
    }
    expect(Math.max(...there.delivered.map((each) => each.heldBackMs))).toBeLessThanOrEqual(holdBackMs ?? 1e9);
    expect(there.running.size).toBe(0);
    expect(there.together, "of one session, in a stage in sequence").toBeLessThanOrEqual(1);
    const final = there.scheduler.statistics();
    expect(final).toMatchObject({ inFlight: 0, heldBack: 0 });
    expect(final.done + final.failed + final.skipped).toBe(coming.length);
    expect(final.late).toBe(there.delivered.filter((each) => each.late).length);
    for (const { name, concurrency } of STAGES) {
      expect(there.most.get(name) ?? 0).toBeLessThanOrEqual(concurrency);
      const reached = there.delivered.flatMap((each) => each.stages).filter((each) => each.stage === name).length;
      const stage = final.stages[name];
      expect(stage).toMatchObject({ pending: 0, running: 0 });
      expect((stage?.done ?? 0) + (stage?.failed ?? 0) + (stage?.skipped ?? 0)).toBe(reached);
    }
  }
});
