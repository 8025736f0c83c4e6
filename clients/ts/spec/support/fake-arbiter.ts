/**
 * A gRPC server in this process that keeps what arrives: for what a real arbiter of this machine does not ask for, such
 * as credentials. It decides nothing.
 */
import { once } from "node:events";
import { rmSync } from "node:fs";
import { createServer } from "node:http2";
import type { AddressInfo, ListenOptions } from "node:net";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { GpuArbiter, type Holder, type SessionRequest, type SessionResponseSchema } from "../../src/v1.js";

export class FakeArbiter implements AsyncDisposable {
  /** The authorization of each call, in order; null where there was none. */
  readonly authorizations: Array<string | null> = [];
  /** Who opened each session. */
  readonly holders: Holder[] = [];
  /** Refuse everything but this one. */
  readonly wanted: string | undefined;
  readonly #server = createServer(
    connectNodeAdapter({
      routes: (router) =>
        router.service(GpuArbiter, {
          session: (requests, context) => this.#session(requests, context),
          snapshot: (_request, context) => this.#snapshot(context),
        }),
    }),
  );
  #path: string | undefined;

  private constructor(wanted: string | undefined) {
    this.wanted = wanted;
  }

  /** Starts one, on a free port of loopback or on a socket. */
  static async start(wanted?: string, path?: string): Promise<FakeArbiter> {
    const arbiter = new FakeArbiter(wanted);
    const place: ListenOptions = path === undefined ? { host: "127.0.0.1", port: 0 } : { path };
    arbiter.#path = path;
    arbiter.#server.listen(place);
    await once(arbiter.#server, "listening");
    return arbiter;
  }

  get address(): string {
    return this.#path === undefined
      ? `127.0.0.1:${(this.#server.address() as AddressInfo).port}`
      : `unix:${this.#path}`;
  }

  #admit(context: HandlerContext): void {
    const authorization = context.requestHeader.get("authorization");
    this.authorizations.push(authorization);
    if (this.wanted !== undefined && authorization !== `Bearer ${this.wanted}`) {
      throw new ConnectError("who are you?", Code.Unauthenticated);
    }
  }

  async *#session(
    requests: AsyncIterable<SessionRequest>,
    context: HandlerContext,
  ): AsyncGenerator<MessageInitShape<typeof SessionResponseSchema>> {
    this.#admit(context);
    for await (const { callId, call } of requests) {
      if (call.case === "open") {
        if (call.value.holder !== undefined) {
          this.holders.push(call.value.holder);
        }
        yield { callId, answer: { case: "opened", value: {} } };
      } else if (call.case === "checkFence") {
        yield { callId, answer: { case: "checkFence", value: { current: true } } };
      }
    }
  }

  async *#snapshot(context: HandlerContext) {
    this.#admit(context);
    yield await Promise.resolve({ snapshot: { instanceId: "fake" } });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    await closed;
    if (this.#path !== undefined) {
      rmSync(this.#path, { force: true });
    }
  }
}
