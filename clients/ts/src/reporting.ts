/** What is told about work that said nothing itself. */
import type { WorkReport, WorkResultName } from "./values.js";

/** The report for work that threw `error` (undefined: that ended by itself) after so long. */
export function reportOf(outcome: { readonly error: unknown } | undefined, heldMs: number): WorkReport {
  return { result: outcome === undefined ? "OK" : resultOf(outcome.error), duration: heldMs };
}

function resultOf(error: unknown): WorkResultName {
  const names = namesOf(error);
  if (names.some((name) => /^(OutOfMemoryError|OutOfMemory|OOMError)$/.test(name))) {
    return "OUT_OF_MEMORY";
  }
  return names.some((name) => /^(AbortError|CancelledError|LeaseLost|LeaseEnded)$/.test(name)) ? "CANCELLED" : "FAILED";
}

/** Its own name, and those of its classes; by name, so that no framework need be known. */
function namesOf(error: unknown): string[] {
  const names: string[] = [];
  if (error instanceof Error) {
    names.push(error.name);
    for (
      let each: unknown = error.constructor;
      typeof each === "function" && each.name;
      each = Object.getPrototypeOf(each)
    ) {
      names.push(each.name);
    }
  }
  return names;
}
