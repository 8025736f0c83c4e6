// Lanes, parts of time, axes and colours of the timeline; lines of charts.

import assert from "node:assert/strict";
import { test } from "node:test";
import { at } from "./at.js";

const { nearest, neighbour, Palette, pack, ticks, View } = await import(at("packing.js"));
const { area, line } = await import(at("paths.js"));

const span = (id, begin, end) => ({ id, begin, end });

test("what overlaps stands in lanes of its own, as few as can be", () => {
  const { placed, lanes } = pack([span("c", 4, 6), span("a", 0, 5), span("b", 5, 8), span("live", 7)], 10);
  assert.equal(lanes, 2);
  assert.deepEqual(Object.fromEntries(placed.map(([{ id }, lane]) => [id, lane])), { a: 0, c: 1, b: 0, live: 1 });
  assert.equal(pack([], 10).lanes, 1);
  assert.equal(
    pack(
      Array.from({ length: 50 }, (_, number) => span(number, 0)),
      10,
    ).lanes,
    12,
  );
});

test("it follows what happens until one moves away, and again when one comes back", () => {
  const view = new View(100, 900);
  assert.deepEqual(view.range(1000), { from: 900, to: 1000 });
  view.pan(-0.5, 1000);
  assert.deepEqual(view.range(1010), { from: 850, to: 950 });
  view.pan(2, 1010);
  assert.ok(view.follows);
  view.pan(-100, 1010);
  assert.ok(view.range(1010).to >= 1010 - 900);
  view.all();
  assert.deepEqual(view.range(2000), { from: 1100, to: 2000 });
});

test("what one points at stays where it is while one zooms, within bounds", () => {
  const view = new View(100, 900);
  view.pan(-1, 1000);
  view.zoom(0.5, 1000, 850);
  assert.deepEqual(view.range(1000), { from: 825, to: 875 });
  view.zoom(0.0001, 1000);
  assert.equal(view.seconds, 5);
  view.zoom(1e9, 1000);
  assert.equal(view.seconds, 900);
});

test("an axis has round moments, about as many as are wanted", () => {
  const moments = ticks(1_000_003, 1_000_123, 12);
  assert.ok(moments.length >= 6 && moments.length <= 13);
  for (const moment of moments) assert.equal(moment % 10, 0);
});

test("names have different colours as long as there are any, and keep them", () => {
  const palette = new Palette(4);
  const given = ["ASR", "NMT", "TTS", "LLM"].map((name) => palette.of(name));
  assert.equal(new Set(given).size, 4);
  assert.ok(palette.of("one more") < 4);
  assert.equal(palette.of("ASR"), given[0]);
  for (let number = 0; number < 1000; number += 1) palette.of(`task ${number}`);
  assert.ok(palette.given.size <= 200);
});

test("the keys lead from lease to lease", () => {
  const spans = [span("b", 5, 8), span("a", 0, 5), span("c", 9)];
  assert.equal(neighbour(spans, null, 1).id, "c");
  assert.equal(neighbour(spans, spans[0], -1).id, "a");
  assert.equal(neighbour(spans, spans[1], -1).id, "a");
  assert.equal(neighbour([], null, 1), null);
  assert.equal(nearest(spans, 8.4, 12).id, "b");
  assert.equal(nearest(spans, 100, 12).id, "c");
  assert.equal(nearest([], 1, 2), null);
});

test("what is not known is a gap in the line", () => {
  const box = { from: 0, to: 10, top: 100, width: 100, height: 50 };
  assert.equal(
    line(
      [
        [0, 0],
        [5, 100],
        [6, null],
        [10, 200],
      ],
      box,
    ),
    "M0.0,50.0L50.0,0.0M100.0,0.0h0.1",
  );
  assert.equal(
    area(
      [
        [0, 50],
        [10, 50],
      ],
      box,
    ),
    "M0.0,50L0.0,25.0L100.0,25.0V50Z",
  );
  assert.equal(line([], box), "");
});
