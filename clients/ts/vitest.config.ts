import { defineConfig } from "vitest/config";

export default defineConfig({ test: { include: ["src/**/*.spec.ts", "spec/**/*.spec.ts"], testTimeout: 30_000 } });
