/** Uses a lease, and does not close its client. */
import { GpuArbiterClient } from "@gpu-arbiter/client";

const client = new GpuArbiterClient();
const lease = await client.lease("ASR");
await lease.release();
for await (const state of client.watch()) {
  console.log(state.leases.length);
  break;
}
