// Figures, reasons and names in words.

import assert from "node:assert/strict";
import { test } from "node:test";
import { at } from "./at.js";

const words = await import(at("words.js"));
const GIB = 2 ** 30;
const GPUS = [{ key: "gpu:0" }, { key: "gpu:1" }];

function lease(client, granted, ...keys) {
  return { client, granted, gpus: keys.map((key) => ({ key })) };
}

function ticket(wishes) {
  return { reason: "GPU_BUSY", candidates: ["gpu:0"], count: 1, memory: 0, ...wishes };
}

test("sizes have a unit that fits, and three figures at most", () => {
  const sizes = [0, 1023, 1024, 1.5 * GIB, 6 * GIB, 24 * GIB, 141 * GIB, 1023.99 * GIB, null];
  assert.deepEqual(sizes.map(words.bytes), [
    "0 B",
    "1023 B",
    "1 KiB",
    "1.5 GiB",
    "6 GiB",
    "24 GiB",
    "141 GiB",
    "1 TiB",
    "–",
  ]);
});

test("durations are as exact as is of use", () => {
  const seconds = [-1, 0.04, 9.94, 9.96, 119.4, 119.6, 3599, 3600, 90_061, 200_000, null];
  assert.deepEqual(seconds.map(words.duration), [
    "0.0 s",
    "0.0 s",
    "9.9 s",
    "10 s",
    "119 s",
    "2 min",
    "59 min 59 s",
    "1 h",
    "25 h 1 min",
    "2 d 7 h",
    "–",
  ]);
});

test("a name cannot turn the text around it, hide in it, or fill the page", () => {
  assert.equal(words.clean("a\u202egpj\u200b.exe\n\u001b[31m"), "a?gpj?.exe??[31m");
  assert.equal(words.clean("<b>&amp;"), "<b>&amp;");
  assert.equal(words.clean("x".repeat(500), 10), `${"x".repeat(9)}…`);
  assert.equal(words.clean(null), "");
});

test("who waits for a GPU is told who has it and since when", () => {
  const leases = [lease("late", 90, "gpu:0"), lease("asr-3", 88, "gpu:0"), lease("other", 1, "gpu:1")];
  assert.equal(words.waitReason(ticket(), GPUS, leases.slice(1), 100), "waits for gpu:0, held by asr-3 for 12 s");
  assert.equal(words.waitReason(ticket(), GPUS, leases, 100), "waits for gpu:0, held by asr-3 for 12 s and 1 other");
  const memory = ticket({ reason: "MEMORY", memory: 6 * GIB });
  assert.equal(
    words.waitReason(memory, GPUS, leases.slice(1), 100),
    "waits for 6 GiB on gpu:0, held by asr-3 for 12 s",
  );
  assert.equal(words.waitReason(ticket(), GPUS, [], 100), "waits for gpu:0");
});

test("who may run on several is told of the one that is held the longest", () => {
  const leases = [lease("asr-3", 88, "gpu:1"), lease("asr-4", 95, "gpu:0")];
  const any = ticket({ candidates: ["gpu:0", "gpu:1"] });
  assert.equal(
    words.waitReason(any, GPUS, leases, 100),
    "waits for one of 2 GPUs; the longest held is gpu:1, by asr-3 for 12 s",
  );
  const both = ticket({ candidates: ["gpu:0", "gpu:1"], count: 2 });
  assert.match(words.waitReason(both, GPUS, leases, 100), /^waits for all of 2 GPUs;/);
  const some = ticket({ candidates: ["gpu:0", "gpu:1"] });
  assert.match(words.waitReason(some, [...GPUS, { key: "gpu:2" }], leases, 100), /^waits for one of gpu:0, gpu:1;/);
});

test("what is out of service is not waited for", () => {
  const gpus = [{ key: "gpu:0", drained: true }, { key: "gpu:1", health: "LOST" }, { key: "gpu:2" }];
  const all = ticket({ candidates: ["gpu:0", "gpu:1", "gpu:2"] });
  assert.equal(words.waitReason(all, gpus, [lease("a", 90, "gpu:2")], 100), "waits for gpu:2, held by a for 10 s");
  const two = ticket({ candidates: ["gpu:0", "gpu:1", "gpu:2"], count: 2 });
  assert.match(words.waitReason(two, gpus, [], 100), /^waits for 2 of 3 GPUs$/);
});

test("every reason has words, and one that is new is shown as it is", () => {
  for (const reason of ["MEMORY_RECOVERY", "DRAINING", "COOLDOWN", "JOURNAL", "SEQUENCE", "QUEUE_ORDER"])
    assert.match(words.waitReason(ticket({ reason }), GPUS, [], 0), /^[a-z].{10,}/);
  assert.equal(words.waitReason(ticket({ reason: "SOME_NEW_ONE" }), GPUS, [], 0), "some new one");
});

test("what ended without its holder's word is told from what did not", () => {
  assert.deepEqual(["RELEASED", "YIELDED", "CANCELLED", undefined].map(words.endedBadly), [false, false, false, false]);
  assert.deepEqual(["REVOKED", "HOLDER_DIED", "TTL_EXPIRED"].map(words.endedBadly), [true, true, true]);
  assert.equal(words.eventKind({ type: "ENDED", end: "HOLDER_DIED" }).kind, "bad");
  assert.equal(words.eventKind({ type: "ENDED", end: "RELEASED" }).kind, "calm");
  assert.equal(words.eventKind({ type: "A_NEW_KIND" }).words, "a new kind");
});

test("the worst is said of a GPU", () => {
  const state = (gpu) => words.gpuState({ health: "OK", drained: false, cooldown: null, ...gpu });
  assert.deepEqual(state({}), { kind: "good", words: "in service" });
  assert.deepEqual(state({ health: "LOST", drained: true }), { kind: "bad", words: "lost" });
  assert.deepEqual(state({ drained: true, cooldown: 3 }), { kind: "warn", words: "drained" });
  assert.deepEqual(state({ cooldown: 12.4 }), { kind: "warn", words: "cooldown, 12 s at most" });
});
