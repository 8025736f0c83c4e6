/** Holds a lease, and goes on until it is ended. */
import { GpuArbiterClient } from "@gpu-arbiter/client";

const client = new GpuArbiterClient();
const lease = await client.lease("ASR");
console.log(lease.leaseId);
