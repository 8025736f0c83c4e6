/**
 * A speech service on plain node:http: every request does its work under a lease on a GPU.
 *
 *   POST /transcribe   waits for a GPU for two seconds, and is done on the CPU otherwise
 *   POST /translate    waits for a GPU as long as the policy says, and is answered 503 with Retry-After otherwise
 *   POST /repair       is left out while the GPU is busy: nice to have
 */
import { createServer } from "node:http";
import { buffer } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { ArbiterError, GpuArbiterClient, LeaseLost } from "@gpu-arbiter/client";

// One client for the whole program; GPU_ARBITER_ADDRESS says where the arbiter is.
const arbiter = new GpuArbiterClient({ clientId: "speech-service" });

/**
 * Stands for your model: a worker process, a runtime's binding. It runs on the devices of the lease, and stops when the
 * signal says so: the lease is lost, or nobody waits for the answer any more.
 * @param {Buffer} input
 * @param {import("@gpu-arbiter/client").Lease} lease
 */
async function onGpu(input, lease) {
  await sleep(50, undefined, { signal: lease.signal });
  lease.report({ workItems: 1 });
  return `${input.length} bytes on ${lease.visibleDevices}`;
}

/** @param {Buffer} input */
async function onCpu(input) {
  await sleep(200);
  return `${input.length} bytes on the CPU`;
}

/**
 * What each path does: the outcome of its work.
 * @type {Record<string, (input: Buffer, signal: AbortSignal) => Promise<import("@gpu-arbiter/client").Outcome<string, string>>>}
 */
const routes = {
  "/transcribe": (input, signal) =>
    arbiter.withGpuLease("ASR", (lease) => onGpu(input, lease), {
      memory: "6GiB",
      busyPolicy: "FALLBACK_CPU",
      maxWait: "2s",
      onCpu: () => onCpu(input),
      signal,
    }),
  "/translate": (input, signal) =>
    arbiter.withGpuLease("NMT", (lease) => onGpu(input, lease), { memory: "4GiB", signal }),
  "/repair": (input, signal) =>
    arbiter.withGpuLease("SEMANTIC_REPAIR", (lease) => onGpu(input, lease), {
      memory: "2GiB",
      busyPolicy: "SKIP",
      maxWait: 0,
      signal,
    }),
};

/**
 * @param {import("node:http").IncomingMessage} request
 * @param {import("node:http").ServerResponse} response
 */
async function serve(request, response) {
  const route = request.method === "POST" ? routes[request.url ?? ""] : undefined;
  if (route === undefined) {
    response.writeHead(404).end();
    return;
  }
  // Whoever hangs up leaves the queue, or stops the work.
  const gone = new AbortController();
  response.once("close", () => gone.abort());
  try {
    const outcome = await route(await buffer(request), gone.signal);
    const body = outcome.kind === "skipped" ? { skipped: outcome.decline.reason } : { result: outcome.value };
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
  } catch (error) {
    if (!gone.signal.aborted) {
      refuse(response, error);
    }
  }
}

/**
 * @param {import("node:http").ServerResponse} response
 * @param {unknown} error
 */
function refuse(response, error) {
  const busy = error instanceof ArbiterError && (error.transient || error.code === "RESOURCE_EXHAUSTED");
  if (busy || error instanceof LeaseLost) {
    const seconds = Math.max(1, Math.ceil((error.retryAfterMs ?? 0) / 1000));
    response.writeHead(503, { "retry-after": String(seconds) }).end(`${error.message}\n`);
  } else {
    console.error(error);
    response.writeHead(500).end();
  }
}

const server = createServer((request, response) => void serve(request, response));
server.listen(Number(process.env["PORT"] ?? 8080), process.env["HOST"] ?? "127.0.0.1", () => {
  const address = server.address();
  console.log(`listening on ${typeof address === "object" ? address?.port : address}`);
});

// Asked to stop: what is under way is finished, and then every lease is given back.
process.once("SIGTERM", () => {
  server.close(() => void arbiter.close());
  server.closeIdleConnections();
});
