/** A line to the arbiter that can go bad: a TCP proxy on loopback. */
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { freePort } from "./ports.js";

export class BadLine implements AsyncDisposable {
  readonly #target: { readonly host: string; readonly port: number };
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  #server: Server | undefined;
  #port = 0;
  #silent = false;
  #downLimit: number | undefined;
  /** How many connections there have been. */
  connections = 0;

  private constructor(target: string) {
    const [host = "", port = ""] = target.split(":");
    this.#target = { host, port: Number(port) };
  }

  static async before(target: string): Promise<BadLine> {
    const proxy = new BadLine(target);
    proxy.#port = await freePort();
    await proxy.heal();
    return proxy;
  }

  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** Ends every connection that stands, with FIN. */
  cut(): void {
    for (const pair of this.#pairs) {
      for (const socket of pair) {
        socket.end();
        socket.destroySoon();
      }
    }
  }

  /** Ends every connection that stands, with RST. */
  reset(): void {
    for (const pair of this.#pairs) {
      for (const socket of pair) {
        socket.resetAndDestroy();
      }
    }
  }

  /** Nobody listens any more; what stands goes on. */
  refuse(): void {
    this.#server?.close();
    this.#server = undefined;
  }

  /** To each side the other one is just silent, from now on; a connection that lost bytes is never whole again. */
  silence(): void {
    this.#silent = true;
    for (const [client, server] of this.#pairs) {
      client.unpipe(server).resume();
      server.unpipe(client).resume();
      client.removeAllListeners("end");
      server.removeAllListeners("end");
    }
  }

  /** New connections are cut once they have brought the client so many bytes. */
  cutAfterDown(bytes: number | undefined): void {
    this.#downLimit = bytes;
  }

  /** New connections are accepted, and their bytes arrive. */
  async heal(): Promise<void> {
    this.#silent = false;
    this.#downLimit = undefined;
    if (this.#server !== undefined) {
      return;
    }
    // Half-open: an end is passed on, not answered.
    const server = createServer({ allowHalfOpen: true }, (client) => this.#welcome(client));
    this.#server = server;
    server.listen(this.#port, "127.0.0.1");
    await once(server, "listening");
  }

  #welcome(client: Socket): void {
    this.connections += 1;
    const server = connect({ ...this.#target, allowHalfOpen: true });
    const pair = [client, server] as const;
    this.#pairs.add(pair);
    for (const [socket, other] of [pair, [server, client] as const]) {
      socket.setNoDelay(true);
      socket.on("error", () => other.destroy());
      socket.on("close", () => {
        this.#pairs.delete(pair);
        if (!this.#silent) {
          other.destroySoon();
        }
      });
    }
    if (this.#silent) {
      client.resume();
      return;
    }
    client.pipe(server);
    const limit = this.#downLimit;
    if (limit === undefined) {
      server.pipe(client);
      return;
    }
    let left = limit;
    server.on("data", (bytes: Buffer) => {
      client.write(bytes.subarray(0, left));
      left -= bytes.length;
      if (left <= 0) {
        client.destroySoon();
        server.destroySoon();
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    const closed = server === undefined ? undefined : once(server, "close");
    server?.close();
    for (const pair of this.#pairs) {
      for (const socket of pair) {
        socket.destroy();
      }
    }
    await closed;
  }
}
