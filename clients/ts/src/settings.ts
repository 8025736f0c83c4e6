/**
 * Where the arbiter is, and what to do when it is not there: from arguments, then the environment, then defaults.
 *
 * Law: a bad value is a RangeError that names it and says what is allowed, before anything is opened.
 */

/** What to do when the arbiter does not answer: fail, or do the work without a lease. */
export type OnUnavailable = "fail" | "proceed";

/** A place to connect to: a TCP address or a Unix socket. */
export type Place = { readonly host: string; readonly port: number } | { readonly path: string };

export const ADDRESS_VARIABLE = "GPU_ARBITER_ADDRESS";
export const TOKEN_VARIABLE = "GPU_ARBITER_TOKEN";
export const ON_UNAVAILABLE_VARIABLE = "GPU_ARBITER_ON_UNAVAILABLE";
export const DEFAULT_ADDRESS = "127.0.0.1:50051";

const ALLOWED = 'write "host:port" or "unix:/path/to/arbiter.sock"';
const MAX_PORT = 65_535;

/** Where to connect, and as who. */
export interface Target {
  readonly address: string;
  readonly token: string | undefined;
}

/** Whom to call, and until when: nothing goes on once the client is closing. */
export interface Source {
  readonly target: Target;
  readonly closing: AbortSignal;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** The address that counts: the argument, otherwise GPU_ARBITER_ADDRESS, otherwise 127.0.0.1:50051. */
export function resolveAddress(argument: string | undefined, environment: Environment = process.env): string {
  const chosen = String(argument ?? (environment[ADDRESS_VARIABLE] || DEFAULT_ADDRESS)).trim();
  placeOf(chosen);
  return chosen;
}

/** What an address points to. */
export function placeOf(address: string): Place {
  if (address.startsWith("unix:")) {
    // gRPC takes unix:relative, unix:/absolute and unix:///absolute alike.
    const rest = address.slice("unix:".length);
    const path = rest.startsWith("///") ? rest.slice(2) : rest;
    if (path === "") {
      throw new RangeError(`${JSON.stringify(address)} is not an address: the path is missing; ${ALLOWED}`);
    }
    return { path };
  }
  const match = /^(\[[^\]]+\]|[^:\s[\]]+):(\d{1,5})$/.exec(address);
  const port = Number(match?.[2]);
  const host = match?.[1];
  if (host === undefined || port < 1 || port > MAX_PORT) {
    throw new RangeError(`${JSON.stringify(address)} is not an address; ${ALLOWED}`);
  }
  return { host: host.startsWith("[") ? host.slice(1, -1) : host, port };
}

/** What to do without an arbiter: the argument, otherwise GPU_ARBITER_ON_UNAVAILABLE, otherwise to fail. */
export function resolveOnUnavailable(
  argument: OnUnavailable | undefined,
  environment: Environment = process.env,
): OnUnavailable {
  const chosen = argument ?? (environment[ON_UNAVAILABLE_VARIABLE] || "fail");
  if (chosen !== "fail" && chosen !== "proceed") {
    throw new RangeError(`onUnavailable is ${JSON.stringify(chosen)}; write "fail" or "proceed"`);
  }
  return chosen;
}

/** The bearer token: the argument, otherwise GPU_ARBITER_TOKEN; none when it is empty. */
export function resolveToken(argument: string | undefined, environment: Environment = process.env): string | undefined {
  const chosen = argument ?? environment[TOKEN_VARIABLE] ?? "";
  if (!/^[\x21-\x7e]*$/.test(chosen)) {
    // It is a secret: not shown.
    throw new RangeError("the token holds a space, a line break or another character that is not printable ASCII");
  }
  return chosen || undefined;
}
