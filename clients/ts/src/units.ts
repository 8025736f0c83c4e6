/**
 * Sizes and durations as people write them: "6GiB", "400ms".
 *
 * Law: one number and one unit, or a plain number; anything else is a RangeError (another type: a TypeError) that
 * names the value and what is allowed. Nothing is guessed: "6G" is refused, because it could mean either of two sizes.
 */
import { create } from "@bufbuild/protobuf";
import { type Duration as DurationMessage, DurationSchema } from "@bufbuild/protobuf/wkt";

/** Bytes as a number, or text with a unit: 6442450944, "6GiB". */
export type Size = number | bigint | string;

/** Milliseconds as a number, or text with a unit: 400, "400ms", "3s", "10m". */
export type Duration = number | string;

const BYTES: Readonly<Record<string, bigint>> = {
  B: 1n,
  KIB: 2n ** 10n,
  MIB: 2n ** 20n,
  GIB: 2n ** 30n,
  TIB: 2n ** 40n,
  KB: 10n ** 3n,
  MB: 10n ** 6n,
  GB: 10n ** 9n,
  TB: 10n ** 12n,
};
const MICROSECONDS: Readonly<Record<string, bigint>> = {
  us: 1n,
  ms: 1_000n,
  s: 1_000_000n,
  m: 60_000_000n,
  h: 3_600_000_000n,
  d: 86_400_000_000n,
};
const MAX_BYTES = 2n ** 64n - 1n;
/** What google.protobuf.Duration holds: 10,000 years. */
const MAX_MICROSECONDS = 315_576_000_000n * 1_000_000n;
const WRITTEN = /^\s*(\d+)(?:\.(\d+))?\s*([A-Za-z]*)\s*$/;
const SIZES = 'write a number of bytes, or a size such as "512MiB" or "6GiB"';
const DURATIONS = 'write milliseconds as a number, or a duration such as "400ms", "3s" or "10m"';

/** A size in bytes: 6442450944, "6GiB", "512MiB", "1.5GB" (KiB counts in 1024, kB in 1000). */
export function parseBytes(value: Size): bigint {
  const size = typeof value === "string" ? amountOf(value, "a size", SIZES, BYTES, "B") : wholeBytes(value);
  if (size < 0n || size > MAX_BYTES) {
    throw new RangeError(`${shown(value)} is out of range; ${SIZES}`);
  }
  return size;
}

function wholeBytes(value: number | bigint): bigint {
  if (typeof value === "bigint") {
    return value;
  }
  if (typeof value !== "number") {
    throw new TypeError(`${shown(value)} is not a size; ${SIZES}`);
  }
  if (!Number.isSafeInteger(value)) {
    throw new RangeError(`${shown(value)} is not a size; ${SIZES}`);
  }
  return BigInt(value);
}

/** A duration in milliseconds, never negative: 400, "400ms", "3s", "10m", "2h". */
export function parseDuration(value: Duration): number {
  return Number(microseconds(value)) / 1_000;
}

function microseconds(value: Duration): bigint {
  if (typeof value !== "string" && typeof value !== "number") {
    throw new TypeError(`${shown(value)} is not a duration; ${DURATIONS}`);
  }
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new RangeError(`${shown(value)} is not a duration; ${DURATIONS}`);
  }
  const amount =
    typeof value === "string"
      ? amountOf(value, "a duration", DURATIONS, MICROSECONDS, undefined)
      : BigInt(Math.round(value * 1_000));
  if (amount < 0n || amount > MAX_MICROSECONDS) {
    throw new RangeError(`${shown(value)} is out of range; ${DURATIONS}`);
  }
  return amount;
}

function amountOf(
  text: string,
  what: string,
  allowed: string,
  units: Readonly<Record<string, bigint>>,
  plain: string | undefined,
): bigint {
  const match = WRITTEN.exec(text);
  if (match === null) {
    throw new RangeError(`${shown(text)} is not ${what}; ${allowed}`);
  }
  const [, whole = "", fraction = "", written = ""] = match;
  const unit = written === "" ? plain : units === BYTES ? written.toUpperCase() : written;
  if (unit === undefined) {
    throw new RangeError(`${shown(text)} has no unit; ${allowed}`);
  }
  const factor = Object.hasOwn(units, unit) ? units[unit] : undefined;
  if (factor === undefined) {
    throw new RangeError(`${shown(text)} is not ${what}: ${shown(written)} is no unit; ${allowed}`);
  }
  return (BigInt(whole + fraction) * factor) / 10n ** BigInt(fraction.length);
}

function shown(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}

/** A Duration message; undefined stays undefined, which leaves the field unset. */
export function durationMessage(value: Duration | undefined): DurationMessage | undefined {
  if (value === undefined) {
    return undefined;
  }
  const amount = microseconds(value);
  const nanos = Number(amount % 1_000_000n) * 1_000;
  return create(DurationSchema, { seconds: amount / 1_000_000n, nanos });
}

/** A Duration message in milliseconds. */
export function durationMs(message: DurationMessage): number {
  return Number(message.seconds) * 1_000 + message.nanos / 1e6;
}

/** A Duration field in milliseconds; undefined when it is not set. */
export function optionalMs(message: DurationMessage | undefined): number | undefined {
  return message === undefined ? undefined : durationMs(message);
}
