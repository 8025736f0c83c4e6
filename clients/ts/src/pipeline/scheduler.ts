/**
 * What is to be done next: the whole of a pipeline's decisions.
 *
 * Law: pure. Events come in with their time, in milliseconds of any clock that only rises; what is to be done comes back
 * as effects. Each job that is submitted is delivered once; a run that its job no longer waits for (it took too long, or
 * the job was cancelled) keeps its place until it has ended, and nothing that comes of it counts.
 */
import { Lane } from "./lane.js";
import { SessionOrder, type Turn } from "./order.js";
import { type Effect, type End, JobRecord, Run, type SessionRecord } from "./records.js";
import type { CheckedStage } from "./stage.js";
import {
  type Cause,
  type Device,
  JobCancelled,
  type PipelineStatistics,
  type StageResult,
  StageTimeout,
  type State,
} from "./values.js";

export class Scheduler {
  readonly #lanes: readonly Lane[];
  readonly #first: Lane;
  readonly #holdBackMs: number | undefined;
  /** Those with jobs under way. */
  readonly #sessions = new Set<SessionRecord>();
  readonly #runs = new Set<Run>();
  readonly #delivered = { done: 0, failed: 0, skipped: 0 };
  #serials = 0;
  #late = 0;

  constructor(stages: readonly [CheckedStage, ...CheckedStage[]], holdBackMs: number | undefined) {
    this.#first = new Lane(stages[0]);
    this.#lanes = [this.#first, ...stages.slice(1).map((stage) => new Lane(stage))];
    this.#holdBackMs = holdBackMs;
  }

  /** A new session; of those that are not over, each has a name of its own. */
  open(sessionId: string, firstIndex: number): SessionRecord {
    return { sessionId, order: new SessionOrder(firstIndex, this.#holdBackMs), jobs: new Map() };
  }

  /**
   * A new job; without an index, the one after the highest so far. Throws a RangeError when the index is there already.
   */
  submit(session: SessionRecord, index: number | undefined, value: unknown, now: number): [JobRecord, Effect[]] {
    const chosen = index ?? session.order.following;
    session.order.expect(chosen);
    const job = new JobRecord(session, chosen, this.#serials++, value, now);
    session.jobs.set(chosen, job);
    this.#sessions.add(session);
    this.#first.join(job);
    return [job, this.#places(now)];
  }

  /** No more jobs come. */
  end(session: SessionRecord, now: number): Effect[] {
    return this.#deliver(session, session.order.end(), now);
  }

  /** These are to be done with, those excepted that are over already. */
  cancel(jobs: Iterable<JobRecord>, now: number): Effect[] {
    const effects: Effect[] = [];
    for (const job of [...jobs].filter((each) => each.overAt === undefined)) {
      const error = new JobCancelled(`utterance ${job.index} of session ${job.session.sessionId} was cancelled`);
      if (job.run === undefined) {
        this.#lanes[job.stage]?.leave(job);
        effects.push(...this.#over(job, "failed", "CANCELLED", error, now));
      } else {
        effects.push(...this.#giveUp(job.run, "CANCELLED", error, now));
      }
    }
    return [...effects, ...this.#places(now)];
  }

  /** Its work begins. */
  began(run: Run, device: Device, now: number): void {
    run.beganAt = now;
    run.device = device;
  }

  /** It is out of its stage. */
  ended(run: Run, end: End, now: number): Effect[] {
    this.#runs.delete(run);
    run.lane.free(run.job);
    const effects = run.abandoned ? [] : this.#judge(run, end, now);
    return [...effects, ...this.#places(now)];
  }

  /** Time has passed. */
  wake(now: number): Effect[] {
    const effects: Effect[] = [];
    for (const run of [...this.#runs].filter((each) => each.deadline !== undefined && each.deadline <= now)) {
      const error = new StageTimeout(`${run.stage.name} took longer than ${run.stage.timeoutMs} ms`);
      effects.push(...this.#giveUp(run, "TIMED_OUT", error, now));
    }
    for (const session of [...this.#sessions]) {
      effects.push(...this.#deliver(session, session.order.due(now), now));
    }
    return [...effects, ...this.#places(now)];
  }

  /** When to call `wake` at the latest. */
  get nextDeadline(): number | undefined {
    const times = [
      ...[...this.#sessions].map((session) => session.order.deadline),
      ...[...this.#runs].map((run) => run.deadline),
    ].filter((time) => time !== undefined);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  /** So far. */
  statistics(): PipelineStatistics {
    const sessions = [...this.#sessions];
    return {
      inFlight: sessions.reduce((sum, session) => sum + session.jobs.size, 0),
      heldBack: sessions.reduce((sum, session) => sum + session.order.heldBack, 0),
      ...this.#delivered,
      late: this.#late,
      stages: Object.fromEntries(this.#lanes.map((lane) => [lane.stage.name, lane.statistics()])),
    };
  }

  #places(now: number): Effect[] {
    const effects: Effect[] = [];
    for (const lane of this.#lanes) {
      for (let job = lane.next(); job !== undefined; job = lane.next()) {
        const run = new Run(job, lane, now);
        job.run = run;
        job.state = "running";
        this.#runs.add(run);
        effects.push({ kind: "start", run });
      }
    }
    return effects;
  }

  #giveUp(run: Run, cause: Cause, error: Error, now: number): Effect[] {
    run.abandoned = true;
    return [{ kind: "abort", run, error }, ...this.#judge(run, { cause, error }, now)];
  }

  /** What a run came to, and what that means for its job. */
  #judge(run: Run, end: End, now: number): Effect[] {
    const { job, stage } = run;
    job.run = undefined;
    const skipped = end.cause === "SKIPPED" || stage.policy(end.cause) === "skip";
    const state: State = end.cause === "" ? "done" : skipped ? "skipped" : "failed";
    const beganAt = run.beganAt ?? now;
    const result: StageResult = {
      sessionId: job.session.sessionId,
      utteranceIndex: job.index,
      stage: stage.name,
      state,
      cause: end.cause,
      error: end.error,
      device: run.device,
      waitedMs: beganAt - job.readyAt,
      ranMs: now - beganAt,
    };
    job.results.push(result);
    run.lane.count(result);
    const told: Effect[] = end.cause === "" || end.cause === "CANCELLED" ? [] : [{ kind: "tell", job, result }];
    if (state === "failed" || end.cause === "SKIPPED") {
      return [...told, ...this.#over(job, state, end.cause, end.error, now)];
    }
    if (state === "done") {
      job.value = end.value;
    }
    return [...told, ...this.#onwards(job, now)];
  }

  #onwards(job: JobRecord, now: number): Effect[] {
    job.stage += 1;
    const lane = this.#lanes[job.stage];
    if (lane === undefined) {
      return this.#over(job, "done", "", undefined, now);
    }
    job.readyAt = now;
    job.state = "pending";
    lane.join(job);
    return [];
  }

  #over(job: JobRecord, state: State, cause: Cause, error: unknown, now: number): Effect[] {
    Object.assign(job, { state, cause, error, overAt: now });
    return this.#deliver(job.session, job.session.order.arrived(job.index, job, now), now);
  }

  #deliver(session: SessionRecord, turns: readonly Turn<JobRecord>[], now: number): Effect[] {
    const effects = turns.map(({ item: job, late }): Effect => {
      session.jobs.delete(job.index);
      if (job.state === "done" || job.state === "failed" || job.state === "skipped") {
        this.#delivered[job.state] += 1;
      }
      this.#late += late ? 1 : 0;
      return { kind: "deliver", job, result: job.result(now, late) };
    });
    if (session.jobs.size === 0) {
      this.#sessions.delete(session);
    }
    return effects;
  }
}
