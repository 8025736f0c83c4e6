/** Programs of their own, and the package, are tested as they are published: built once, before all. */
import { execFileSync } from "node:child_process";
import { PACKAGE } from "./places.js";

export function setup(): void {
  execFileSync(process.execPath, ["scripts/build.mjs"], { cwd: PACKAGE, stdio: "inherit" });
}
