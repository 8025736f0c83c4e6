/**
 * A failed call, as an error of the tree.
 *
 * Law: whatever arrives, an ArbiterError comes out. The reason decides the class; without one the status code does,
 * and the message names the address.
 */
import { Code, ConnectError } from "@connectrpc/connect";
import { type Detail, factsOf } from "./details.js";
import { ArbiterError, ArbiterUnavailable, BY_REASON, type ErrorFacts, Unauthenticated } from "./errors.js";
import { ErrorReason, type Failure } from "./gen/gpuarbiter/v1/error_pb.js";
import { optionalMs } from "./units.js";

/** Without a reason of the arbiter's, these are how a line that was cut, in whatever moment, shows. */
const TRANSPORT_CODES: ReadonlySet<number> = new Set([
  Code.Unavailable,
  Code.DeadlineExceeded,
  Code.Unknown,
  Code.Internal,
  Code.Canceled,
  Code.Aborted,
]);

/** The name of a status code as gRPC writes it, such as "DEADLINE_EXCEEDED". */
export function codeName(code: number): string {
  const name = Code[code];
  if (name === undefined) {
    return code === 0 ? "OK" : `CODE_${code}`;
  }
  return code === Code.Canceled ? "CANCELLED" : name.replaceAll(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
}

/** The error for whatever a call of Connect's threw, which may have arrived before it failed. */
export function fromConnect(thrown: unknown, address: string, mayHaveArrived = true): ArbiterError {
  if (thrown instanceof ArbiterError) {
    return thrown;
  }
  const failure = ConnectError.from(thrown);
  const details = failure.details.filter((each): each is Detail => "value" in each);
  // What Node says when an answer is not HTTP/2.
  const foreign = failure.rawMessage === "Protocol error";
  const said = foreign ? "what answers there does not speak gRPC; is this its port for HTTP?" : failure.rawMessage;
  return errorOf(failure.code, said, { ...factsOf(details), cause: thrown }, address, mayHaveArrived);
}

/** The error for a call that failed inside a session. */
export function fromFailure(failure: Failure, address: string): ArbiterError {
  const reason = failure.reason === ErrorReason.UNSPECIFIED ? "" : (ErrorReason[failure.reason] ?? "");
  const facts: ErrorFacts = {
    reason: reason || (failure.reason === ErrorReason.UNSPECIFIED ? "" : `UNRECOGNIZED_${failure.reason}`),
    metadata: failure.metadata,
    retryAfterMs: optionalMs(failure.retryAfter),
    violations: failure.violations.map(({ field, description }) => ({ field, description })),
  };
  return errorOf(failure.code, failure.message, facts, address, true);
}

function errorOf(code: number, said: string, given: ErrorFacts, address: string, arrived: boolean): ArbiterError {
  const name = codeName(code);
  const facts = { ...given, code: name };
  const message = said || `the call ended ${name}`;
  if (facts.reason) {
    const kind = BY_REASON[facts.reason] ?? ArbiterError;
    return new kind(message, facts);
  }
  if (TRANSPORT_CODES.has(code)) {
    const text = `the arbiter at ${address} cannot be reached: ${message}`;
    return new ArbiterUnavailable(text, { ...facts, mayHaveArrived: arrived });
  }
  // Proxies refuse credentials before the arbiter could give a reason.
  return code === Code.Unauthenticated ? new Unauthenticated(message, facts) : new ArbiterError(message, facts);
}
