/**
 * Messages on their way from one task to another, in order.
 *
 * Law: what was put in before the end is still read; then comes the end, or the failure that ended it, for ever.
 */
export class Mailbox<T> implements AsyncIterable<T> {
  readonly #waiting: T[] = [];
  readonly #readers: Array<{ resolve: (value: T | undefined) => void; reject: (reason: unknown) => void }> = [];
  #end: { readonly failure?: unknown } | undefined;

  get ended(): boolean {
    return this.#end !== undefined;
  }

  /** Puts a message in; false when it has ended. */
  put(message: T): boolean {
    if (this.#end !== undefined) {
      return false;
    }
    const reader = this.#readers.shift();
    if (reader === undefined) {
      this.#waiting.push(message);
    } else {
      reader.resolve(message);
    }
    return true;
  }

  /** Nothing more comes. */
  close(): void {
    this.#finish({});
  }

  /** Nothing more comes, for this reason. */
  fail(failure: unknown): void {
    this.#finish({ failure });
  }

  #finish(end: { readonly failure?: unknown }): void {
    if (this.#end !== undefined) {
      return;
    }
    this.#end = end;
    for (const reader of this.#readers.splice(0)) {
      if ("failure" in end) {
        reader.reject(end.failure);
      } else {
        reader.resolve(undefined);
      }
    }
  }

  /** The next message; undefined at the end. Throws the failure that ended it. */
  read(): Promise<T | undefined> {
    if (this.#waiting.length > 0) {
      return Promise.resolve(this.#waiting.shift());
    }
    if (this.#end !== undefined) {
      return "failure" in this.#end ? Promise.reject(this.#end.failure) : Promise.resolve(undefined);
    }
    return new Promise((resolve, reject) => this.#readers.push({ resolve, reject }));
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      const message = await this.read();
      if (message === undefined) {
        return;
      }
      yield message;
    }
  }
}
