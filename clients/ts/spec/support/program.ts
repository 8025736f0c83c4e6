/** A Node program of its own, which uses the package as it is published. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { PACKAGE } from "./places.js";
import { until } from "./until.js";

export class Program implements AsyncDisposable {
  readonly #process: ChildProcess;
  readonly #ended: Promise<unknown>;
  /** The lines of its stdout, and of its stderr. */
  readonly said: string[] = [];
  readonly complained: string[] = [];

  /** Starts clients/ts/PATH with these variables. */
  constructor(path: string, variables: NodeJS.ProcessEnv) {
    const child = spawn(process.execPath, [path], {
      cwd: PACKAGE,
      env: { ...process.env, ...variables },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#process = child;
    this.#ended = once(child, "close");
    createInterface({ input: child.stdout }).on("line", (line) => this.said.push(line));
    createInterface({ input: child.stderr }).on("line", (line) => this.complained.push(line));
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  /** Waits for so many lines of its stdout. */
  async says(lines: number): Promise<readonly string[]> {
    const enough = () => this.said.length >= lines || this.#process.exitCode !== null;
    await until(enough, `line ${lines} of the program`);
    if (this.said.length < lines) {
      throw new Error(`it ended with ${this.#process.exitCode}: ${[...this.said, ...this.complained].join("\n")}`);
    }
    return this.said;
  }

  kill(signal: NodeJS.Signals): void {
    this.#process.kill(signal);
  }

  /** Waits for its end; its exit code, or the signal that ended it. */
  async end(): Promise<number | NodeJS.Signals | null> {
    await this.#ended;
    return this.#process.exitCode ?? this.#process.signalCode;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.#ended;
  }
}
