/** What a spec looks at beside the client: operators' calls, the log, what is left at the arbiter. */
import { type Admin, GpuArbiterClient, type Logger } from "../../src/index.js";
import type { EventType, ListEventsResponse } from "../../src/v1.js";
import { until } from "./until.js";

/** What operators can ask for. */
export const adminOf = (address: string): Admin => new GpuArbiterClient({ address }).admin;

/** The events of an arbiter so far, of some types. */
export async function eventsOf(address: string, ...types: EventType[]): Promise<ListEventsResponse[]> {
  const events: ListEventsResponse[] = [];
  for await (const event of adminOf(address).events()) {
    if (types.includes(event.type)) {
      events.push(event);
    }
  }
  return events;
}

/** A logger that keeps what it is told. */
export function keptLog(): Logger & { readonly lines: string[] } {
  const lines: string[] = [];
  const keep = (level: string) => (message: string) => void lines.push(`${level}: ${message}`);
  return { lines, debug: keep("debug"), info: keep("info"), warn: keep("warn"), error: keep("error") };
}

/** Leases and waiting requests at the arbiter. */
export async function leftAt(address: string): Promise<{ readonly leases: number; readonly waiting: number }> {
  await using client = new GpuArbiterClient({ address });
  const { leases, queueLength } = await client.snapshot();
  return { leases: leases.length, waiting: queueLength };
}

/** Waits until there is no lease and nobody waits; for less long than the arbiter keeps what it lost sight of. */
export async function nothingLeftAt(address: string, ms = 4_000): Promise<void> {
  const left = async () => {
    const { leases, waiting } = await leftAt(address);
    return leases + waiting === 0;
  };
  await until(left, "nothing to be left at the arbiter", ms);
}

/** Waits until a signal is aborted. */
export async function aborted(signal: AbortSignal): Promise<void> {
  await until(() => signal.aborted, "the signal to be aborted");
}
