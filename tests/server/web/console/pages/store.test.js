// What is kept of the news, and what needs somebody.

import assert from "node:assert/strict";
import { test } from "node:test";
import { at } from "./at.js";

const { Store } = await import(at("store.js"));
const { attention } = await import(at("attention.js"));

const news = (said) => ({ now: 100, first: false, readings: [], spans: [], events: [], ...said });
const GPU = {
  key: "gpu:0",
  health: "OK",
  drained: false,
  cooldown: null,
  why: "",
  total: 100,
  unleased: 0,
  waiting: 0,
  waiting_limit: 8,
};

test("what is told twice counts once, and the first news of a stream begin anew", () => {
  const store = new Store();
  store.take(news({ first: true, events: [{ n: 1 }, { n: 2 }], readings: [[1], [2]], gpus: [GPU] }), 0);
  store.take(news({ events: [{ n: 2 }, { n: 3 }], readings: [[2], [3]], spans: [{ id: "a", begin: 1 }] }), 0);
  store.take(news({ spans: [{ id: "a", begin: 1, end: 2 }] }), 0);
  assert.deepEqual(
    store.events.map(({ n }) => n),
    [3, 2, 1],
  );
  assert.deepEqual(store.readings, [[1], [2], [3]]);
  assert.deepEqual([...store.spans.values()], [{ id: "a", begin: 1, end: 2, marks: [] }]);
  assert.equal(store.gpus.length, 1);
  store.take(news({ first: true }), 0);
  assert.deepEqual([store.events, store.readings, store.spans.size, store.gpus], [[], [], 0, []]);
});

test("of two readings for the same moment the later told counts, so that a clock that is put back loses nothing", () => {
  const store = new Store();
  store.take(news({ readings: [[100], [200], [202]] }), 0);
  store.take(news({ readings: [[150], [152]] }), 0);
  store.take(news({}), 0);
  assert.deepEqual(store.readings, [[100], [150], [152]]);
});

test("everything has a bound", () => {
  const store = new Store();
  const many = Array.from({ length: 4000 }, (_, number) => number + 1);
  store.take(
    news({
      events: many.map((n) => ({ n })),
      readings: many.map((n) => [n]),
      spans: many.map((id) => ({ id, begin: id })),
    }),
    0,
  );
  assert.deepEqual([store.events.length, store.readings.length, store.spans.size], [500, 450, 2500]);
  assert.deepEqual(
    [store.events[0].n, store.readings.at(-1)[0], store.spans.has(4000), store.spans.has(1)],
    [4000, 4000, true, false],
  );
});

test("time goes on between news, and stands still while the arbiter is away", () => {
  const store = new Store();
  store.take(news({ now: 50 }), 1000);
  assert.equal(store.now(3000), 52);
  store.freeze(3000);
  store.freeze(9000);
  assert.equal(store.now(99_000), 52);
  store.tell(60, 99_000);
  assert.equal(store.now(99_500), 60.5);
});

test("the worst comes first, and no more than eight at a time", () => {
  const store = new Store();
  store.gpus = [
    { ...GPU, drained: true, why: "a new fan" },
    { ...GPU, key: "gpu:1", health: "LOST", why: "fell off the bus" },
    { ...GPU, key: "gpu:2", waiting: 8 },
    { ...GPU, key: "gpu:3", unleased: 30 },
  ];
  store.leases.rows = [
    { client: "slow", task: "ASR", gpus: [{ key: "gpu:3" }], hold_until: 90 },
    { client: "fine", task: "ASR", gpus: [{ key: "gpu:3" }], hold_until: null },
  ];
  store.queue.rows = [{ since: 0 }, { since: 99 }];
  const { shown, more } = attention(store, 100);
  assert.deepEqual(
    shown.map(({ kind, what }) => `${kind} ${what}`),
    [
      "bad gpu:1: lost",
      "bad slow is 10 s past its limit",
      "warn gpu:0: drained",
      "warn gpu:2: the queue is full",
      "warn gpu:3: 30 B in use without a lease",
      "warn 1 request waiting for more than a minute",
    ],
  );
  assert.equal(more, 0);
  store.gpus = Array.from({ length: 20 }, (_, number) => ({ ...GPU, key: `gpu:${number}`, health: "LOST" }));
  assert.equal(attention(store, 100).shown.length, 8);
  assert.equal(attention(store, 100).more, 14);
});

test("an arbiter that cannot grant says so", () => {
  const store = new Store();
  store.arbiter = { nvml_up: false, stopping: true, journal_fault: "disk full" };
  store.gpus = [{ ...GPU, source: "nvml" }];
  assert.deepEqual(
    attention(store, 0).shown.map(({ kind, what }) => `${kind} ${what}`),
    ["bad Nothing can be granted", "bad The arbiter is stopping", "bad The driver does not answer"],
  );
});
