/**
 * Who asks: the Holder message of this process.
 *
 * Law: what the system does not tell is left out, never guessed; nothing here throws.
 */
import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";
import { basename, dirname, extname } from "node:path";
import { create } from "@bufbuild/protobuf";
import { type Holder, HolderSchema } from "./gen/gpuarbiter/v1/lease_pb.js";

const MAX_CLIENT_ID = 128;
/** Field 22 of /proc/PID/stat, counted from the third: the second, the name, may itself hold spaces. */
const START_TICKS = 22 - 3;

/** The holder that this process is, under `clientId` or a name made of program, host and pid. */
export function holderOf(clientId: string | undefined, attestation: string): Holder {
  return create(HolderSchema, {
    clientId: clientId ?? defaultClientId(),
    pid: process.pid,
    pidNamespace: namespaceOf(read(() => readlinkSync("/proc/self/ns/pid"))),
    processStartTicks: startTicksOf(read(() => readFileSync("/proc/self/stat", "latin1"))),
    namespace: process.env["POD_NAMESPACE"] ?? "",
    pod: process.env["POD_NAME"] ?? "",
    container: process.env["CONTAINER_NAME"] ?? "",
    attestation,
  });
}

/** A name such as "train-node7-4711": unique while the process lives, at most 128 characters. */
export function defaultClientId(script: string = process.argv[1] ?? "", host: string = hostname()): string {
  const file = basename(script, extname(script));
  // What is called index says nothing; its folder does.
  const program = (file === "index" ? basename(dirname(script)) : file) || "node";
  const tail = `-${host}-${process.pid}`;
  return (program.slice(0, Math.max(1, MAX_CLIENT_ID - tail.length)) + tail).slice(-MAX_CLIENT_ID);
}

/** The inode in a link such as "pid:[4026531836]"; 0 where there is none. */
export function namespaceOf(link: string): bigint {
  return BigInt(/\[(\d+)\]/.exec(link)?.[1] ?? 0);
}

/** When the process of a /proc/PID/stat line started, in clock ticks since boot; 0 when that cannot be known. */
export function startTicksOf(stat: string): bigint {
  const ticks = stat
    .slice(stat.lastIndexOf(")") + 1)
    .trim()
    .split(/\s+/)[START_TICKS];
  return ticks !== undefined && /^\d+$/.test(ticks) ? BigInt(ticks) : 0n;
}

function read(source: () => string): string {
  try {
    return source();
  } catch {
    return "";
  }
}
