import { context, createTraceState, TraceFlags, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";

const NONE = { traceparent: "", tracestate: "" };
const SPAN = { traceId: "a".repeat(32), spanId: "b".repeat(16), traceFlags: TraceFlags.NONE };

let currentTrace: typeof import("./tracing.js").currentTrace;
beforeAll(() => void context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable()));
afterAll(() => context.disable());
beforeEach(async () => {
  // It looks for OpenTelemetry once.
  vi.resetModules();
  ({ currentTrace } = await import("./tracing.js"));
});

const under = (span: Parameters<typeof trace.setSpanContext>[1]) =>
  context.with(trace.setSpanContext(context.active(), span), () => currentTrace());

test("the headers of the span that is active", async () => {
  expect(await under(SPAN)).toEqual({ traceparent: `00-${"a".repeat(32)}-${"b".repeat(16)}-00`, tracestate: "" });
  const traceState = createTraceState("vendor=1");
  expect(await under({ ...SPAN, traceFlags: TraceFlags.SAMPLED, traceState })).toEqual({
    traceparent: `00-${"a".repeat(32)}-${"b".repeat(16)}-01`,
    tracestate: "vendor=1",
  });
});

test("none without a span, with one that is not valid, and without OpenTelemetry", async () => {
  expect(await currentTrace()).toEqual(NONE);
  expect(await under({ ...SPAN, traceId: "0".repeat(32) })).toEqual(NONE);
  vi.resetModules();
  const { currentTrace: without } = await import("./tracing.js");
  const found = await context.with(trace.setSpanContext(context.active(), SPAN), () =>
    without(() => Promise.resolve(undefined)),
  );
  expect(found).toEqual(NONE);
});
