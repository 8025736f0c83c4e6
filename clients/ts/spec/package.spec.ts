/** What is published: its files, its entrances, its types. */
import { execFileSync, spawnSync } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { PACKAGE, ROOT } from "./support/places.js";

interface Packed {
  readonly filename: string;
  readonly size: number;
  readonly files: ReadonlyArray<{ readonly path: string }>;
}

let folder = "";
let packed: Packed;
/** Where the package is installed, as a program that uses it has it. */
let installed = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ts-package-"));
  // dist was built before all specs; others may be running it.
  const npm = ["pack", "--json", "--ignore-scripts", "--pack-destination", folder];
  [packed] = JSON.parse(execFileSync("npm", npm, { cwd: PACKAGE, encoding: "utf8" })) as [Packed];
  const modules = join(folder, "node_modules");
  installed = join(modules, "@gpu-arbiter/client");
  mkdirSync(installed, { recursive: true });
  execFileSync("tar", ["-xzf", join(folder, packed.filename), "-C", installed, "--strip-components=1"]);
  for (const each of ["@bufbuild", "@connectrpc", "@types", "undici-types"]) {
    symlinkSync(join(PACKAGE, "node_modules", each), join(modules, each));
  }
  writeFileSync(join(folder, "package.json"), JSON.stringify({ type: "module" }));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("it holds what the sources became, and nothing else", () => {
  const sources = readdirSync(join(PACKAGE, "src"), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts") && !path.endsWith(".spec.ts"))
    .map((path) => `dist/${path.replace(/\.ts$/, "")}`);
  const expected = [
    "LICENSE",
    "README.md",
    "package.json",
    ...sources.flatMap((path) => [`${path}.js`, `${path}.d.ts`]),
  ];
  expect(packed.files.map((each) => each.path).sort()).toEqual(expected.sort());
  expect(readFileSync(join(installed, "LICENSE"), "utf8")).toBe(readFileSync(join(ROOT, "LICENSE"), "utf8"));
  expect(packed.size).toBeLessThan(150_000);
});

test("its entrances are two, and modules of ES", () => {
  const program = `
    import { GpuArbiterClient, VERSION } from "@gpu-arbiter/client";
    import { GpuArbiter } from "@gpu-arbiter/client/v1";
    const inside = await import("@gpu-arbiter/client/dist/line.js").catch((error) => error.code);
    console.log(JSON.stringify([typeof GpuArbiterClient, VERSION, GpuArbiter.typeName, inside]));`;
  const said = execFileSync(process.execPath, ["--input-type=module", "-e", program], {
    cwd: folder,
    encoding: "utf8",
  });
  const { version, engines } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8")) as {
    readonly version: string;
    readonly engines: unknown;
  };
  expect(JSON.parse(said)).toEqual(["function", version, "gpuarbiter.v1.GpuArbiter", "ERR_PACKAGE_PATH_NOT_EXPORTED"]);
  expect(engines).toEqual({ node: ">=20" });
});

test.each(["nodenext", "bundler"])("its types hold in a strict program (%s)", (resolution) => {
  for (const path of ["spec/api-samples.ts", "examples/tour.ts"]) {
    copyFileSync(join(PACKAGE, path), join(folder, basename(path)));
  }
  const compilerOptions = {
    target: "es2022",
    lib: ["es2023", "esnext.disposable"],
    types: ["node"],
    module: resolution === "bundler" ? "esnext" : resolution,
    moduleResolution: resolution,
    strict: true,
    exactOptionalPropertyTypes: true,
    // The declarations of the package are looked at, too.
    skipLibCheck: false,
    noEmit: true,
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.ts"] }));
  const { stdout, status } = spawnSync(join(PACKAGE, "node_modules/.bin/tsc"), ["-p", folder], { encoding: "utf8" });
  expect([stdout, status]).toEqual(["", 0]);
});
