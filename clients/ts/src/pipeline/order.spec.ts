/** Results of a session come out in order, and none waits for too long. */
import { expect, test } from "vitest";
import { dice } from "../../spec/support/dice.js";
import { MAX_GAPS, SessionOrder, type Turn } from "./order.js";

function expecting(indices: readonly number[], holdBackMs: number | undefined = 2, first = 0): SessionOrder<string> {
  const order = new SessionOrder<string>(first, holdBackMs);
  for (const index of indices) {
    order.expect(index);
  }
  return order;
}

const out = (turns: readonly Turn<string>[]) => turns.map(({ item, late }) => item + (late ? "!" : "")).join(" ");

test("what is early waits for what is before it", () => {
  const order = expecting([0, 1, 2]);
  expect(out(order.arrived(2, "c", 0))).toBe("");
  expect(out(order.arrived(1, "b", 0))).toBe("");
  expect(order.heldBack).toBe(2);
  expect(out(order.arrived(0, "a", 1))).toBe("a b c");
  expect(order.deadline).toBeUndefined();
});

test("what waited long enough goes, and the late one is marked", () => {
  const order = expecting([0, 1, 2, 3]);
  order.arrived(1, "b", 1);
  order.arrived(3, "d", 2);
  expect(order.deadline).toBe(3);
  expect(out(order.due(2.9))).toBe("");
  expect(out(order.due(3))).toBe("b");
  expect(out(order.arrived(0, "a", 3.5))).toBe("a!");
  expect(out(order.due(4))).toBe("d");
  expect(out(order.arrived(2, "c", 9))).toBe("c!");
});

test("what is there below the overdue goes before it", () => {
  const order = expecting([0, 1, 2, 3, 4]);
  order.arrived(3, "d", 0);
  order.arrived(1, "b", 1);
  order.arrived(4, "e", 1.5);
  expect(out(order.due(2))).toBe("b d e");
});

test("an index that nobody submitted holds back as long, and may come after all", () => {
  const order = expecting([5], 2, 2);
  expect(out(order.arrived(5, "f", 0))).toBe("");
  expect(out(order.due(2))).toBe("f");
  order.expect(3);
  expect(out(order.arrived(3, "d", 3))).toBe("d!");
  for (const index of [3, 5, 0, 1]) {
    expect(() => order.expect(index)).toThrow(`utteranceIndex ${index} is there already`);
  }
  order.expect(2);
  order.expect(4);
});

test("nothing is held back where that is said", () => {
  const order = expecting([0, 1], 0);
  order.arrived(1, "b", 7);
  expect(order.deadline).toBe(7);
  expect(out(order.due(7))).toBe("b");
  expect(out(order.arrived(0, "a", 8))).toBe("a!");
});

test("without a bound it waits as long as it takes", () => {
  const order = new SessionOrder<string>(0, undefined);
  order.expect(0);
  order.expect(1);
  order.arrived(1, "b", 0);
  expect(order.deadline).toBeUndefined();
  expect(out(order.due(1e9))).toBe("");
  expect(out(order.arrived(0, "a", 1e9))).toBe("a b");
});

test("once ended, gaps hold nobody back, but those under way do", () => {
  const order = expecting([1, 4, 6]);
  order.arrived(6, "g", 0);
  order.arrived(1, "b", 0);
  expect(out(order.end())).toBe("b");
  expect(order.over).toBe(false);
  expect(out(order.arrived(4, "e", 1))).toBe("e g");
  expect(order.over).toBe(true);
});

test("what is late and under way is waited for at the end", () => {
  const order = expecting([0, 1]);
  order.arrived(1, "b", 0);
  expect(out(order.due(2))).toBe("b");
  expect(out(order.end())).toBe("");
  expect(order.over).toBe(false);
  expect(out(order.arrived(0, "a", 3))).toBe("a!");
  expect(order.over).toBe(true);
});

test.each([0, 1])("index %i comes once", (index) => {
  const order = expecting([0, 1]);
  order.arrived(1, "b", 0);
  expect(() => order.expect(index)).toThrow("there already");
});

test("indices follow the highest", () => {
  const order = expecting([], 2, 3);
  expect(order.following).toBe(3);
  order.expect(9);
  order.expect(4);
  expect(order.following).toBe(10);
});

test("gaps are remembered up to a bound", () => {
  const order = expecting([], 0);
  for (let number = 0; number <= MAX_GAPS; number++) {
    order.expect(2 * number + 1);
    order.arrived(2 * number + 1, "x", 0);
    order.due(0);
  }
  expect(() => order.expect(0)).toThrow("passed over too long ago");
  order.expect(2);
});

test("whatever comes when, each comes out once and in order", () => {
  for (let seed = 1; seed <= 400; seed++) {
    const roll = dice(seed);
    const holdBackMs = roll.pick([undefined, 0, 1, 3]);
    const jobs = roll.distinct(12, 31).map((index) => {
      const at = roll.pick([0, 0.5, 1, 2.5, 7]);
      return { index, at, came: at + roll.pick([0, 0.5, 1, 2.5, 7]) };
    });
    const order = new SessionOrder<number>(0, holdBackMs);
    const turns: (Turn<number> & { readonly when: number })[] = [];
    const take = (when: number, came: readonly Turn<number>[]) =>
      turns.push(...came.map((turn) => ({ ...turn, when })));
    const dueUntil = (time: number) => {
      for (let { deadline } = order; deadline !== undefined && deadline <= time; { deadline } = order) {
        take(deadline, order.due(deadline));
      }
    };
    const events = jobs.flatMap(({ index, at, came }) => [
      { at, arrives: 0, index },
      { at: came, arrives: 1, index },
    ]);
    events.sort((one, other) => one.at - other.at || one.arrives - other.arrives || one.index - other.index);
    for (const { at, arrives, index } of events) {
      dueUntil(at);
      if (arrives) {
        take(at, order.arrived(index, index, at));
      } else {
        order.expect(index);
      }
    }
    dueUntil(1e9);
    take(1e9, order.end());

    expect(turns.map(({ item }) => item).sort((one, other) => one - other)).toEqual(
      jobs.map(({ index }) => index).sort((one, other) => one - other),
    );
    expect(order.over).toBe(true);
    const came = new Map(jobs.map((job) => [job.index, job.came]));
    let highest = -1;
    for (const { item, late, when } of turns) {
      expect(late).toBe(item < highest);
      highest = Math.max(highest, item);
      const since = came.get(item) ?? Number.NaN;
      expect(when).toBeGreaterThanOrEqual(since);
      expect(when).toBeLessThanOrEqual(holdBackMs === undefined ? 1e9 : since + holdBackMs);
    }
  }
});
