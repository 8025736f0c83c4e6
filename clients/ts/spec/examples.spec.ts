/** The examples run as they stand, and the pages show them as they are. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import * as tour from "../examples/tour.js";
import { GpuArbiterClient, sharedClient } from "../src/index.js";
import { Arbiterd } from "./support/arbiterd.js";
import { nothingLeftAt } from "./support/looking.js";
import { PACKAGE, ROOT } from "./support/places.js";

const read = (path: string) => readFileSync(join(ROOT, path), "utf8");
/** The blocks of a language on a page. */
const blocks = (page: string, language: string) =>
  [...read(page).matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, "gms"))].map((match) => match[1] ?? "");
/** Without indentation, and without the imports of what stands for the reader's own. */
const flat = (text: string) =>
  text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => !line.endsWith('from "./speech.js";'))
    .join("\n");

describe("a block on a page is a part of an example", () => {
  const examples = readdirSync(join(PACKAGE, "examples"))
    .filter((name) => name.endsWith(".ts"))
    .map((name) => flat(read(`clients/ts/examples/${name}`)));
  const pages = ["docs/typescript-client.md", "clients/ts/README.md", "README.md"];
  test.each(pages)("%s", (page) => {
    const shown = blocks(page, "ts");
    expect(shown.length).toBeGreaterThan(0);
    expect(shown.filter((block) => !examples.some((example) => example.includes(flat(block))))).toEqual([]);
  });
  test("docs/node-service.md, as a whole", () => {
    expect(blocks("docs/node-service.md", "js")).toEqual([read("clients/ts/examples/node-service.js")]);
  });
});

test.each(["typescript-client.md", "node-service.md"])("the links of docs/%s lead somewhere", (page) => {
  for (const [, path = "", anchor] of read(`docs/${page}`).matchAll(/\]\(([\w./-]*)(?:#([\w-]+))?\)/g)) {
    const target = read(join("docs", path || page));
    const anchors = [...target.matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\w -]/g, "")
        .replaceAll(" ", "-"),
    );
    expect(anchors, `${path}#${anchor}`).toEqual(anchor === undefined ? anchors : expect.arrayContaining([anchor]));
  }
});

describe("they run", () => {
  let arbiter: Arbiterd;
  let client: GpuArbiterClient;
  beforeAll(async () => {
    arbiter = await Arbiterd.start("cooldown=0s");
    vi.stubEnv("GPU_ARBITER_ADDRESS", arbiter.address);
    client = new GpuArbiterClient();
  });
  beforeEach(() => nothingLeftAt(arbiter.address));
  afterAll(async () => {
    await client.close();
    await sharedClient().close();
    vi.unstubAllEnvs();
    await arbiter[Symbol.asyncDispose]();
  });

  test("the first lease", async () => {
    const { outcome } = await import("../examples/first-lease.js");
    expect(outcome).toMatchObject({ kind: "granted", value: expect.stringMatching(/^32000 bytes on GPU-/) });
  });

  test("the tour", async () => {
    await tour.block();
    await tour.blockWithout(client);
    expect(await tour.outcomes(client, "hello")).toMatch(/^hello on GPU-/);
    expect(await tour.declines(client, "hello")).toMatch(/^hello on GPU-/);
    expect(await tour.work(client, "hello", new AbortController().signal)).toMatch(/^hello on GPU-/);
    await tour.compared(client, "hello");
    await tour.listen(client);
    await tour.program(client);
    await tour.report(client, ["one"]);
    await tour.nightly();
    await tour.errors(client);
    await tour.shared();
    expect(await tour.proceed("hello")).toMatch(/^hello on GPU-/);
    await expect(tour.look(client, AbortSignal.timeout(50))).rejects.toMatchObject({ name: "TimeoutError" });
    const lease = await tour.waiting(client);
    await tour.train(lease);
    await tour.change(lease);
    expect(await tour.outcomes(client, "hello"), "while another one holds it").toBe("hello");
    expect(await tour.declines(client, "hello")).toBe("hello");
    await expect(tour.operate(client, lease, AbortSignal.timeout(200))).rejects.toMatchObject({ name: "TimeoutError" });
    await lease.release();
  });
});
