/**
 * One connection to the arbiter.
 *
 * Law: it stands, or this throws ArbiterUnavailable, and then nothing was sent. A connection that broke is never mended:
 * another one is opened. However it breaks, `broken` is aborted; Node's HTTP/2 does not end every stream of a
 * connection that is cut.
 */
import { connect as connectSocket, type Socket } from "node:net";
import { type Client, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Connection } from "./connection.js";
import { ArbiterUnavailable } from "./errors.js";
import { GpuArbiterAdmin } from "./gen/gpuarbiter/v1/admin_pb.js";
import { GpuArbiter } from "./gen/gpuarbiter/v1/gpu_arbiter_pb.js";
import { type Place, placeOf, type Target } from "./settings.js";
import { timing } from "./timing.js";
import { onAbort } from "./waiting.js";

export interface Wire {
  readonly client: Client<typeof GpuArbiter>;
  readonly admin: Client<typeof GpuArbiterAdmin>;
  /** Aborted when the connection is gone, for whatever reason; the reason is an ArbiterUnavailable. */
  readonly broken: AbortSignal;
  /** Whether it keeps the program from ending; it does until told. */
  readonly hold: (busy: boolean) => void;
  readonly close: () => void;
}

/** Opens a connection. */
export async function openWire(target: Target, signal?: AbortSignal): Promise<Wire> {
  const place = placeOf(target.address);
  const socket = await connected(place, target.address, signal);
  const baseUrl = "path" in place ? "http://localhost" : `http://${target.address}`;
  const connection = new Connection(baseUrl, socket);
  const broken = new AbortController();
  socket.once("close", () => {
    const why = connection.why === "" ? "" : `: ${connection.why}`;
    const message = `the connection to the arbiter at ${target.address} broke${why}`;
    broken.abort(new ArbiterUnavailable(message, { code: "UNAVAILABLE", mayHaveArrived: true }));
  });
  const interceptors = target.token === undefined ? [] : [bearing(target.token)];
  const transport = createGrpcTransport({ baseUrl, sessionManager: connection, interceptors });
  return {
    client: createClient(GpuArbiter, transport),
    admin: createClient(GpuArbiterAdmin, transport),
    broken: broken.signal,
    hold: (busy) => connection.hold(busy),
    close: () => connection.close(),
  };
}

function bearing(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}

/** A socket that stands. */
function connected(place: Place, address: string, signal: AbortSignal | undefined): Promise<Socket> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const socket = connectSocket(place);
    const finish = (outcome: () => void) => {
      clearTimeout(timer);
      forget();
      socket.off("error", refused);
      socket.off("connect", stands);
      outcome();
    };
    const give = (reason: unknown) =>
      finish(() => {
        socket.on("error", () => {});
        socket.destroy();
        reject(reason);
      });
    const unavailable = (why: string, cause?: unknown) =>
      give(
        new ArbiterUnavailable(`the arbiter at ${address} cannot be reached: ${why}`, { code: "UNAVAILABLE", cause }),
      );
    const refused = (error: Error & { code?: string }) =>
      unavailable(error.message || (error.code ?? "refused"), error);
    const stands = () =>
      finish(() => {
        socket.setNoDelay(true);
        // Without any listener an error would end the program.
        socket.on("error", () => {});
        resolve(socket);
      });
    const timer = setTimeout(() => unavailable(`no connection within ${timing.connectMs} ms`), timing.connectMs);
    socket.once("error", refused);
    socket.once("connect", stands);
    const forget = onAbort(signal, () => give(signal?.reason));
  });
}
