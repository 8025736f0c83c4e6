/**
 * Whether two results are nearly the same.
 *
 * Law: numbers may be apart by `absolute` plus `relative` times the second one, in arrays, typed arrays and plain objects
 * of them, too; all else is to be equal. NaN equals NaN.
 */
import { isDeepStrictEqual } from "node:util";

export interface Tolerance {
  readonly relative: number;
  readonly absolute: number;
}

export function close(one: unknown, other: unknown, tolerance: Tolerance): boolean {
  if (typeof one === "number" && typeof other === "number") {
    return near(one, other, tolerance);
  }
  const [list, otherList] = [listOf(one), listOf(other)];
  if (list !== undefined && otherList !== undefined) {
    return (
      list.length === otherList.length && list.every((each, index) => close(each, otherList[index] ?? null, tolerance))
    );
  }
  if (isPlain(one) && isPlain(other)) {
    const keys = Object.keys(one);
    return (
      keys.length === Object.keys(other).length &&
      keys.every((key) => Object.hasOwn(other, key) && close(one[key], other[key], tolerance))
    );
  }
  return isDeepStrictEqual(one, other);
}

function near(one: number, other: number, { relative, absolute }: Tolerance): boolean {
  if (one === other || (Number.isNaN(one) && Number.isNaN(other))) {
    return true;
  }
  const apart = Math.abs(one - other);
  return Number.isFinite(apart) && apart <= absolute + relative * Math.abs(other);
}

function listOf(value: unknown): readonly unknown[] | undefined {
  if (Array.isArray(value)) {
    return value;
  }
  const typed = ArrayBuffer.isView(value) && !(value instanceof DataView);
  return typed ? Array.from(value as unknown as ArrayLike<unknown>) : undefined;
}

function isPlain(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && [Object.prototype, null].includes(Object.getPrototypeOf(value));
}
