/** Holds a lease and waits for another one when it closes its client. */
import { GpuArbiterClient } from "@gpu-arbiter/client";

const client = new GpuArbiterClient();
const lease = await client.lease("ASR");
const waiting = client.lease("ASR").catch((error) => console.log(error.message));
await client.close();
await waiting;
console.log(lease.released?.reason);
