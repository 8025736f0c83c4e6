/**
 * The caller's trace, where the program uses OpenTelemetry: its span becomes the parent of the lease's.
 *
 * Law: @opentelemetry/api is an optional peer; without it, or without a span, there is simply no trace.
 */
import type { TraceContext } from "./options.js";

type Api = typeof import("@opentelemetry/api");

const NONE: TraceContext = { traceparent: "", tracestate: "" };
let loading: Promise<Api | undefined> | undefined;

const load = () => import("@opentelemetry/api").catch(() => undefined);

/** Of the span that is active where this is called. */
export async function currentTrace(source: () => Promise<Api | undefined> = load): Promise<TraceContext> {
  loading ??= source();
  const api = await loading;
  const span = api?.trace.getActiveSpan()?.spanContext();
  if (api === undefined || span === undefined || !api.isSpanContextValid(span)) {
    return NONE;
  }
  const flags = span.traceFlags.toString(16).padStart(2, "0");
  return {
    traceparent: `00-${span.traceId}-${span.spanId}-${flags}`,
    tracestate: span.traceState?.serialize() ?? "",
  };
}
