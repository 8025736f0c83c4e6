/**
 * Calls over a connection of their own each, so that they neither wait for leases nor are in their way.
 *
 * Law: whatever fails is an ArbiterError or the signal's reason, and the connection is closed in every way out.
 */
import type { CallOptions } from "@connectrpc/connect";
import { set } from "./options.js";
import type { Source } from "./settings.js";
import { fromConnect } from "./status.js";
import { timing } from "./timing.js";
import { link } from "./waiting.js";
import { openWire, type Wire } from "./wire.js";

/** A call with many answers; without `timeoutMs` it may last for ever. */
export async function* streamed<T>(
  { target, closing }: Source,
  call: (wire: Wire, options: CallOptions) => AsyncIterable<T>,
  signal: AbortSignal | undefined,
  timeoutMs?: number,
): AsyncGenerator<T, void, undefined> {
  const given = link(signal, closing);
  let wire: Wire | undefined;
  try {
    given.signal.throwIfAborted();
    wire = await openWire(target, given.signal);
    const ended = link(wire.broken, given.signal);
    yield* call(wire, { signal: ended.signal, ...set("timeoutMs", timeoutMs) });
  } catch (thrown) {
    given.signal.throwIfAborted();
    throw fromConnect(wire?.broken.aborted ? wire.broken.reason : thrown, target.address);
  } finally {
    given.unlink();
    wire?.close();
  }
}

/** A call with one answer. */
export async function answered<T>(
  source: Source,
  call: (wire: Wire, options: CallOptions) => Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T> {
  async function* only(wire: Wire, options: CallOptions) {
    yield await call(wire, options);
  }
  for await (const answer of streamed(source, only, signal, timing.callMs)) {
    return answer;
  }
  throw new Error("a call ended without an answer or a failure");
}
