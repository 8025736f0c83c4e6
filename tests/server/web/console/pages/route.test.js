// Addresses of views.

import assert from "node:assert/strict";
import { test } from "node:test";
import { at } from "./at.js";

const { route } = await import(at("route.js"));

test("a view has a name, and may be of something", () => {
  assert.deepEqual(route("#leases"), { name: "leases", argument: undefined });
  assert.deepEqual(route("#gpu=gpu%3A0%2F1"), { name: "gpu", argument: "gpu:0/1" });
  assert.deepEqual(route("#gpu=a=b"), { name: "gpu", argument: "a=b" });
  assert.deepEqual(route(""), { name: "", argument: undefined });
});

test("what makes no sense leads nowhere", () => {
  assert.deepEqual(route("#gpu=%"), { name: "", argument: undefined });
  assert.equal(route("#%\n=x").name, "%\n");
});
