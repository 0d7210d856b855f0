/** Images that are made to harm: they unpack within limits, or are refused, and nothing is left of them. */
import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { Daemon } from "./harness/daemon.js";
import { fault } from "./harness/figures.js";
import { cliOf } from "./harness/docker.js";
import { effort } from "./harness/effort.js";
import { environment, imageRef } from "./harness/environment.js";
import { type Entry, image, layer } from "./harness/image-builder.js";
import { leftovers } from "./harness/leftovers.js";
import { peakOf } from "./harness/memory.js";
import { push } from "./harness/registry.js";

const MiB = 1024 * 1024;

describe("an image that", { timeout: 1_800_000 }, () => {
  const bridge = `hhi${process.pid}`;
  const daemon = new Daemon(path.join(environment().directory, "hi"));
  const { docker, ok } = cliOf(daemon, { timeout: 600_000 });
  const bytes = effort(96, 1024) * MiB;
  const entries = effort(5_000, 1_000_000);
  let clean: string[];

  const files = () =>
    (leftovers(daemon, bridge)["files"] ?? []).filter((name) =>
      name.startsWith("images/"),
    );
  /** Pushes an image of one layer. @returns its reference */
  async function hostile(tag: string, content: Entry[]): Promise<string> {
    const { plain } = environment().registries;
    await push(plain, "hostile", tag, image([await layer(content)], {}));
    return imageRef("hostile", tag);
  }

  before(async () => {
    await daemon.start([
      ...(environment().root ? ["--bridge", bridge] : []),
      ...["--warm", "0", "--templates", "off"],
      ...["--max-layer-size", String(bytes + 4 * MiB)],
      ...["--max-layer-entries", String(entries)],
    ]);
    // What the first pull makes, such as the versions of the store, is there.
    await ok(["pull", imageRef("busybox")]);
    clean = files();
  });
  after(() => daemon.destroy());

  test("is a thousandth of what it unpacks to takes no memory, and its room is given back", async (t) => {
    const zeros = await hostile("zeros", [
      { name: "zeros", content: Buffer.alloc(bytes) },
    ]);
    const peak = peakOf(daemon.pid);
    await ok(["pull", zeros]);
    const grown = peak();
    assert.ok(grown < 128 * MiB, `the daemon grew by ${grown} bytes`);
    await ok(["rmi", zeros]);
    assert.deepEqual(files(), clean);
    fault(t, "1 GiB of zeros in 1 MiB", 1, 0);
  });

  const beyond: [what: string, content: () => Entry[], reason: RegExp][] = [
    [
      "unpacks to more than is allowed",
      () => [{ name: "zeros", content: Buffer.alloc(bytes + 8 * MiB) }],
      /layer is larger than \d+ bytes/,
    ],
    [
      "has more files than are allowed",
      () =>
        Array.from({ length: entries + 1 }, (_, at) => ({
          name: `${at % 1000}/${at}`,
          content: "",
        })),
      /layer has more than \d+ entries/,
    ],
    [
      "hides its own root",
      () => [{ name: ".wh..", content: "" }],
      /invalid whiteout/,
    ],
    [
      "reaches out of its root",
      () => [{ name: "../outside", content: "x" }],
      /outside/,
    ],
  ];
  for (const [what, content, reason] of beyond) {
    test(`${what} is refused with the reason, and nothing is left`, async (t) => {
      const tag = what.replaceAll(" ", "-");
      const reference = await hostile(tag, content());
      const { code, stderr } = await docker(["pull", reference]);
      assert.equal(code, 1, stderr);
      assert.match(stderr, reason);
      assert.deepEqual(files(), clean);
      await daemon.ping();
      fault(t, `image ${what}`, 1, 0);
    });
  }

  test("has names in other encodings keeps them", async () => {
    const names = ["caf\u00e9", "\u65e5\u672c", "a\tb", "\u202egnp.exe"];
    const odd = await hostile(
      "names",
      names.map((name) => ({ name, content: name })),
    );
    await ok(["pull", odd]);
    await ok(["create", "--name", "odd", odd, "x"]);
    for (const name of names) {
      const archive = await docker(["cp", `odd:/${name}`, "-"]);
      assert.equal(archive.code, 0, archive.stderr);
      assert.ok(archive.stdout.includes(name));
    }
    await ok(["rm", "odd"]);
    await ok(["rmi", odd]);
  });
});
