/**
 * The three messages of google.rpc that a status carries (google/rpc/error_details.proto), read from their bytes.
 *
 * Law: bytes that cannot be decoded cost no more than that detail.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import type { ErrorFacts, Violation } from "./errors.js";
import { durationMs } from "./units.js";

/** The domain of the reasons that are the arbiter's. */
const DOMAIN = "gpuarbiter";

/** A detail of a status: the full name of its message, and its bytes. */
export interface Detail {
  readonly type: string;
  readonly value: Uint8Array;
}

/** What the details of a status say. */
export function factsOf(details: readonly Detail[]): ErrorFacts {
  let facts: ErrorFacts = {};
  for (const { type, value } of details) {
    try {
      if (type === "google.rpc.ErrorInfo") {
        facts = { ...facts, ...errorInfo(value) };
      } else if (type === "google.rpc.RetryInfo") {
        facts = { ...facts, ...retryInfo(value) };
      } else if (type === "google.rpc.BadRequest") {
        facts = { ...facts, violations: [...(facts.violations ?? []), ...badRequest(value)] };
      }
    } catch {
      // Undecodable: the facts that there are must do.
    }
  }
  return facts;
}

/** The length-delimited fields of a message, by number; others are skipped. */
function* fieldsOf(bytes: Uint8Array): Generator<[number, Uint8Array]> {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (type === 2) {
      yield [field, reader.bytes()];
    } else {
      reader.skip(type, field);
    }
  }
}

const text = (bytes: Uint8Array) => new TextDecoder("utf-8", { fatal: true }).decode(bytes);

function textsOf(bytes: Uint8Array): [string, string] {
  const texts = new Map<number, string>();
  for (const [field, value] of fieldsOf(bytes)) {
    texts.set(field, text(value));
  }
  return [texts.get(1) ?? "", texts.get(2) ?? ""];
}

function errorInfo(bytes: Uint8Array): ErrorFacts {
  let reason = "";
  let domain = "";
  const metadata: Record<string, string> = {};
  for (const [field, value] of fieldsOf(bytes)) {
    if (field === 1) {
      reason = text(value);
    } else if (field === 2) {
      domain = text(value);
    } else if (field === 3) {
      const [key, said] = textsOf(value);
      metadata[key] = said;
    }
  }
  return domain === DOMAIN ? { reason, metadata } : {};
}

function retryInfo(bytes: Uint8Array): ErrorFacts {
  for (const [field, value] of fieldsOf(bytes)) {
    if (field === 1) {
      return { retryAfterMs: durationMs(fromBinary(DurationSchema, value)) };
    }
  }
  return {};
}

function badRequest(bytes: Uint8Array): Violation[] {
  return [...fieldsOf(bytes)]
    .filter(([field]) => field === 1)
    .map(([, value]) => {
      const [field, description] = textsOf(value);
      return { field, description };
    });
}
