/**
 * Whose result of a session is next.
 *
 * Law: pure, and time is an argument. Every index that is expected comes out exactly once. What comes out in its place
 * comes in rising order; what others have waited for longer than they may comes out when it comes, marked late.
 */

/** How many stretches of passed-over indices are remembered, for those that come after all. */
export const MAX_GAPS = 256;

/** An item whose turn has come. */
export interface Turn<T> {
  readonly item: T;
  readonly late: boolean;
}

interface Ready<T> {
  readonly since: number;
  readonly item: T;
}

/** The order of one session: from the lowest index there is; each waits for at most so long (undefined: any). */
export class SessionOrder<T> {
  readonly #holdBackMs: number | undefined;
  /** Everything below has come out, was passed over, or is expected still and will be late. */
  #next: number;
  #highest: number;
  readonly #expected = new Set<number>();
  readonly #ready = new Map<number, Ready<T>>();
  #gaps: (readonly [first: number, last: number])[] = [];
  #ended = false;

  constructor(firstIndex: number, holdBackMs: number | undefined) {
    this.#next = firstIndex;
    this.#highest = firstIndex - 1;
    this.#holdBackMs = holdBackMs;
  }

  /** The index after the highest that was expected. */
  get following(): number {
    return this.#highest + 1;
  }

  /** How many wait for their turn. */
  get heldBack(): number {
    return this.#ready.size;
  }

  /** No more are expected, and all came out. */
  get over(): boolean {
    return this.#ended && this.#expected.size === 0 && this.#ready.size === 0;
  }

  /** One of this index is to come. Throws a RangeError when it was expected before. */
  expect(index: number): void {
    const there = this.#expected.has(index) || this.#ready.has(index);
    if (there || (index < this.#next && !this.#fillGap(index))) {
      throw new RangeError(`utteranceIndex ${index} is there already, or was passed over too long ago`);
    }
    this.#expected.add(index);
    this.#highest = Math.max(this.#highest, index);
  }

  /** It is there; returns what comes out now. */
  arrived(index: number, item: T, now: number): Turn<T>[] {
    this.#expected.delete(index);
    if (index < this.#next) {
      return [{ item, late: true }];
    }
    this.#ready.set(index, { since: now, item });
    return this.#inPlace();
  }

  /** When to call `due` at the latest. */
  get deadline(): number | undefined {
    if (this.#holdBackMs === undefined || this.#ready.size === 0) {
      return undefined;
    }
    return Math.min(...[...this.#ready.values()].map((each) => each.since)) + this.#holdBackMs;
  }

  /** What was held back for long enough, and whatever has its turn with it. */
  due(now: number): Turn<T>[] {
    const bound = this.#holdBackMs;
    if (bound === undefined) {
      return [];
    }
    const overdue = [...this.#ready].filter(([, each]) => each.since + bound <= now).map(([index]) => index);
    const highest = Math.max(...overdue);
    const turns: Turn<T>[] = [];
    for (const index of [...this.#ready.keys()].filter((each) => each <= highest).sort(ascending)) {
      this.#passOver(index);
      turns.push(...this.#inPlace());
    }
    return turns;
  }

  /** No more are expected: what never came holds nobody back. */
  end(): Turn<T>[] {
    this.#ended = true;
    return this.#inPlace();
  }

  #inPlace(): Turn<T>[] {
    const turns: Turn<T>[] = [];
    while (this.#ready.size > 0) {
      if (this.#ended) {
        this.#passOver(Math.min(...this.#ready.keys(), ...this.#expectedOn()));
      }
      const ready = this.#ready.get(this.#next);
      if (ready === undefined) {
        break;
      }
      this.#ready.delete(this.#next);
      turns.push({ item: ready.item, late: false });
      this.#next += 1;
    }
    return turns;
  }

  #expectedOn(): number[] {
    return [...this.#expected].filter((index) => index >= this.#next);
  }

  /** Goes on at this index; what is expected below it will be late, what is not is remembered as a gap. */
  #passOver(index: number): void {
    const target = Math.max(index, this.#next);
    for (const known of [...this.#expectedOn().filter((each) => each < target), target].sort(ascending)) {
      if (known > this.#next) {
        this.#gaps.push([this.#next, known - 1]);
      }
      this.#next = known < target ? known + 1 : known;
    }
    this.#gaps = this.#gaps.slice(-MAX_GAPS);
  }

  /** Whether it was passed over, which it is no longer. */
  #fillGap(index: number): boolean {
    const place = this.#gaps.findIndex(([first, last]) => first <= index && index <= last);
    const [first, last] = this.#gaps[place] ?? [0, -1];
    if (place >= 0) {
      const left = [[first, index - 1] as const, [index + 1, last] as const];
      this.#gaps.splice(place, 1, ...left.filter(([from, to]) => from <= to));
    }
    return place >= 0;
  }
}

const ascending = (one: number, other: number) => one - other;
