/** gpu-arbiterd as a process of its own, on free ports and in folders of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { createInterface } from "node:readline";
import { ROOT } from "./places.js";
import { freePort } from "./ports.js";

const PYTHON = join(ROOT, ".venv", "bin", "python");
const READY = /gpu-arbiterd is ready: (.*)/;
const PATIENCE_MS = 30_000;

/** The environment of an arbiter that shares nothing with any other; `state` names its journal. */
function environment(folder: string, state: string): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !/^(GPU_ARBITER_|STATE_DIRECTORY)/.test(name));
  return {
    ...Object.fromEntries(kept),
    PYTHONPATH: [join(ROOT, "server"), join(ROOT, "clients/python/src")].join(delimiter),
    XDG_RUNTIME_DIR: folder,
    XDG_STATE_HOME: join(folder, state),
    GPU_ARBITER_SIM_DIR: join(folder, "sim"),
  };
}

/** An arbiter with simulated GPUs, which can be killed and started again at the same address, on the same state. */
export class Arbiterd implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "ts-"));
  readonly #settings: readonly string[];
  #process: ChildProcess | undefined;
  #address = "";
  #socket = "";
  #http = "";
  #state = "state";
  readonly #said: string[] = [];

  private constructor(settings: readonly string[]) {
    this.#settings = settings;
  }

  /** Starts one; settings as --set takes them, the later wins. */
  static async start(...settings: string[]): Promise<Arbiterd> {
    const arbiter = new Arbiterd(settings);
    // A port of its own from the start, so that it comes back there.
    arbiter.#address = `127.0.0.1:${await freePort()}`;
    await arbiter.start();
    return arbiter;
  }

  /** host:port */
  get address(): string {
    return this.#address;
  }

  /** unix:/path */
  get socket(): string {
    return this.#socket;
  }

  /** host:port of its metrics */
  get http(): string {
    return this.#http;
  }

  /** The samples of a metric whose labels hold all of these texts, summed. */
  async metric(name: string, ...labels: string[]): Promise<number> {
    const page = await (await fetch(`http://${this.#http}/metrics`)).text();
    const samples = page
      .split("\n")
      .filter((line) => line.startsWith(`${name}{`) && labels.every((each) => line.includes(each)));
    return samples.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
  }

  /** All that it has said. */
  get output(): string {
    return this.#said.join("\n");
  }

  /** Starts it again; from now on on another state, if one is named. */
  async start(state = this.#state): Promise<void> {
    this.#state = state;
    const settings = ["gpus=sim:1x24GiB", `listen.grpc=${this.#address}`, "listen.http=127.0.0.1:0", ...this.#settings];
    const flags = settings.flatMap((each) => ["--set", each]);
    const child = spawn(PYTHON, ["-m", "gpuarbiter_server.cli", "serve", ...flags], {
      cwd: this.folder,
      env: environment(this.folder, state),
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#process = child;
    const ready = new Promise<string>((resolveReady, reject) => {
      for (const stream of [child.stdout, child.stderr]) {
        createInterface({ input: stream }).on("line", (line) => {
          this.#said.push(line);
          const match = READY.exec(line);
          if (match?.[1] !== undefined) {
            resolveReady(match[1]);
          }
        });
      }
      child.once("error", reject);
      child.once("exit", (code) => reject(new Error(`it ended with ${code} before it was ready:\n${this.output}`)));
      setTimeout(() => reject(new Error(`it was not ready in time:\n${this.output}`)), PATIENCE_MS).unref();
    });
    for (const part of (await ready).split(", ")) {
      if (part.startsWith("unix:")) {
        this.#socket = part;
      } else if (part.startsWith("http ")) {
        this.#http = part.slice("http ".length);
      }
    }
  }

  /** SIGKILL, unless told otherwise; returns once it is gone. */
  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const child = this.#process;
    if (child !== undefined && child.exitCode === null && child.signalCode === null) {
      const gone = once(child, "exit");
      child.kill(signal);
      await gone;
    }
  }

  /** A signal, without waiting for what comes of it. */
  signal(signal: NodeJS.Signals): void {
    this.#process?.kill(signal);
  }

  /** Kills it and starts it again. */
  async restart(state?: string): Promise<void> {
    await this.kill();
    await this.start(state);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
