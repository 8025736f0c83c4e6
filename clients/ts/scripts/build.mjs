/** Makes what is published: dist of the sources, and the licence of the repository. */
import { execFileSync } from "node:child_process";
import { copyFileSync, rmSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = resolve(dirname(fileURLToPath(import.meta.url)), "..");
rmSync(resolve(here, "dist"), { recursive: true, force: true });
copyFileSync(resolve(here, "../../LICENSE"), resolve(here, "LICENSE"));
execFileSync("npx", ["--no-install", "tsc", "-p", "tsconfig.build.json"], { cwd: here, stdio: "inherit" });
