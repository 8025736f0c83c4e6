/**
 * An HTTP/2 connection that notices when its peer is gone.
 *
 * Law: it is asked whether it lives once a second unless it was heard of, and destroyed when it does not answer; whatever
 * happens to it, nothing is thrown at the program. Connect's own session manager pings connections that it has destroyed
 * already, which ends the program.
 */
import { type ClientHttp2Session, type ClientHttp2Stream, connect, type OutgoingHttpHeaders } from "node:http2";
import type { Socket } from "node:net";
import { timing } from "./timing.js";

export class Connection {
  readonly authority: string;
  readonly #socket: Socket;
  readonly #session: ClientHttp2Session;
  readonly #pinging: NodeJS.Timeout;
  #unanswered: NodeJS.Timeout | undefined;
  #heard = true;
  /** Why it is gone, where this side knows. */
  why = "";

  /** Over a socket that stands. */
  constructor(authority: string, socket: Socket) {
    this.authority = authority;
    this.#socket = socket;
    this.#session = connect(authority, { createConnection: () => socket });
    // Its streams, and the end of its socket, say what there is to say.
    this.#session.on("error", () => {});
    this.#pinging = setInterval(() => this.#ping(), timing.pingIntervalMs).unref();
    socket.once("close", () => this.#stop());
  }

  /** For Connect: begins a request. */
  async request(method: string, path: string, headers: OutgoingHttpHeaders): Promise<ClientHttp2Stream> {
    return await Promise.resolve(this.#session.request({ ...headers, ":method": method, ":path": path }));
  }

  /** For Connect: something was received. */
  notifyResponseByteRead(): void {
    this.#heard = true;
  }

  /** Whether it keeps the program from ending. */
  hold(busy: boolean): void {
    if (busy) {
      this.#session.ref();
    } else {
      this.#session.unref();
    }
  }

  close(): void {
    this.#stop();
    this.#session.destroy();
    this.#socket.destroy();
  }

  #ping(): void {
    if (this.#session.destroyed || this.#session.closed || this.#unanswered !== undefined) {
      return;
    }
    if (this.#heard) {
      this.#heard = false;
      return;
    }
    // In a program that was busy, the answer may have arrived, and not been read yet.
    this.#unanswered = setTimeout(() => setImmediate(() => this.#giveUp()), timing.pingTimeoutMs).unref();
    this.#session.ping((failed) => {
      clearTimeout(this.#unanswered);
      this.#unanswered = undefined;
      this.#heard = failed === null;
    });
  }

  #giveUp(): void {
    if (this.#unanswered !== undefined) {
      this.why = "it does not answer";
      this.close();
    }
  }

  #stop(): void {
    clearInterval(this.#pinging);
    clearTimeout(this.#unanswered);
    this.#unanswered = undefined;
  }
}
