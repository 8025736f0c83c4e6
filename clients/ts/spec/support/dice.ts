/** Chance that can be repeated: the same seed, the same rolls. */
export interface Dice {
  /** From 0 up to, and without, 1. */
  readonly next: () => number;
  readonly pick: <T>(choices: readonly T[]) => T;
  /** From 1 to `most` different whole numbers below `limit`. */
  readonly distinct: (most: number, limit: number) => number[];
}

/** Mulberry32: enough for choosing what happens in a test. */
export function dice(seed: number): Dice {
  let state = Math.imul(seed, 0x9e3779b1);
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (limit: number) => Math.floor(next() * limit);
  return {
    next,
    pick: (choices) => choices[below(choices.length)] as (typeof choices)[number],
    distinct: (most, limit) => {
      const chosen = new Set<number>();
      for (let left = 1 + below(most); left > 0; left--) {
        chosen.add(below(limit));
      }
      return [...chosen];
    },
  };
}
