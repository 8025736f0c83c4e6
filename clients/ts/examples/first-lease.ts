/** The first screen of the README. */

import { withGpuLease } from "@gpu-arbiter/client";
import { audio, transcribe } from "./speech.js";

const outcome = await withGpuLease(
  "ASR",
  (lease) => transcribe(audio, lease.visibleDevices), // waits its turn; given back at the end, whatever happens
  { memory: "6GiB", sessionId: "call-17" },
);
if (outcome.kind === "granted") {
  process.stdout.write(`${outcome.value}\n`);
}

export { outcome };
