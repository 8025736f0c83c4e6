/** The span of the caller, where the program uses OpenTelemetry, is the parent of the lease's. */
import { context, type SpanContext, TraceFlags, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { afterAll, beforeAll, expect, test } from "vitest";
import { GpuArbiterClient } from "../src/index.js";
import { Arbiterd } from "./support/arbiterd.js";
import { until } from "./support/until.js";

const SPAN: SpanContext = { traceId: "a".repeat(32), spanId: "b".repeat(16), traceFlags: TraceFlags.SAMPLED };

let arbiter: Arbiterd;
let client: GpuArbiterClient;
beforeAll(async () => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  arbiter = await Arbiterd.start("cooldown=0s");
  client = new GpuArbiterClient({ address: arbiter.address });
});
afterAll(async () => {
  context.disable();
  await client.close();
  await arbiter[Symbol.asyncDispose]();
});

/** The line of the arbiter's log that says that a lease ended. */
async function endOf(leaseId: string): Promise<string> {
  const line = () => arbiter.output.split("\n").find((each) => each.includes(leaseId) && each.includes("ENDED"));
  await until(line, "the end of the lease to be logged");
  return line() ?? "";
}

test("the arbiter knows the trace of a lease, also of one that waited", async () => {
  const under = trace.setSpanContext(context.active(), SPAN);
  const outcome = await context.with(under, () => client.withGpuLease("ASR", (lease) => lease.leaseId));
  expect(outcome.kind === "granted" && (await endOf(outcome.value))).toContain(`trace_id=${SPAN.traceId}`);
});

test("without a span there is no trace of the caller's", async () => {
  const outcome = await client.withGpuLease("ASR", (lease) => lease.leaseId);
  expect(outcome.kind === "granted" && (await endOf(outcome.value))).not.toContain(SPAN.traceId);
});
