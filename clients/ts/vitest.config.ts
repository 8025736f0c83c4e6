import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const source = (name: string) => fileURLToPath(new URL(`./src/${name}.ts`, import.meta.url));

export default defineConfig({
  // Examples name the package as its users do; here that is its sources.
  resolve: {
    alias: [
      { find: /^@gpu-arbiter\/client$/, replacement: source("index") },
      { find: /^@gpu-arbiter\/client\/v1$/, replacement: source("v1") },
    ],
  },
  test: {
    include: ["src/**/*.spec.ts", "spec/**/*.spec.ts"],
    globalSetup: "spec/support/built.ts",
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // On a machine that is busy with other things.
    expect: { poll: { timeout: 15_000 } },
    // They wait more than they compute.
    maxWorkers: 3,
  },
});
