import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { DamagedTemplate, TemplateStore } from "./template-store.js";

const STATE = "the state of the devices";

describe("template store", () => {
  let root: string;
  let store: TemplateStore;
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), "hull-templates-"));
    store = new TemplateStore(root);
  });
  afterEach(() => rmSync(root, { recursive: true }));

  const path = (name: string, platform = "here", shape = "small") =>
    join(root, platform, shape, name);

  async function make(platform = "here", shape = "small"): Promise<void> {
    const draft = await store.draft(platform, shape);
    writeFileSync(draft.memoryFile, "memory of a machine");
    writeFileSync(draft.stateFile, STATE);
    await draft.finish({
      bytes: STATE.length,
      sha256: createHash("sha256").update(STATE).digest("hex"),
    });
  }

  async function damaged(reason: RegExp): Promise<void> {
    await assert.rejects(
      store.open("here", "small"),
      (error: Error) =>
        error instanceof DamagedTemplate && reason.test(error.message),
    );
  }

  test("what was saved is found, and QEMU reads the state from its begin", async () => {
    assert.equal(await store.open("here", "small"), undefined);
    await make();
    const template = await store.open("here", "small");
    assert(template);
    assert.equal(
      readFileSync(template.memoryFile, "utf8"),
      "memory of a machine",
    );
    // From where the descriptor stands, as QEMU does.
    assert.equal(readFileSync(template.state.fd, "utf8"), STATE);
    await template.state.close();
    assert.equal(await store.open("elsewhere", "small"), undefined);
    assert.equal(await store.open("here", "large"), undefined);
  });

  test("a draft that was not finished is no template", async () => {
    const draft = await store.draft("here", "small");
    writeFileSync(draft.memoryFile, "half");
    assert.equal(await store.open("here", "small"), undefined);
    await draft.abandon();
    assert(!existsSync(draft.memoryFile));
  });

  test("drafts that a killed daemon left are removed, and nothing else", async () => {
    await store.removeDrafts();
    await make();
    await store.draft("here", "other");
    await store.draft("elsewhere", "small");
    await store.removeDrafts();
    assert.equal(existsSync(join(root, "here", "other.draft")), false);
    assert.equal(existsSync(join(root, "elsewhere", "small.draft")), false);
    assert(await store.open("here", "small"));
  });

  test("a memory file that was cut short, altered or replaced is refused", async () => {
    await make();
    truncateSync(path("memory"), 3);
    await damaged(/has 3 bytes instead of 19/);
    await make();
    writeFileSync(path("memory"), "memory of a MACHINE");
    await damaged(/altered/);
    await make();
    // Whoever sets the time of change back cannot do so to the inode's.
    const before = new Date(0);
    utimesSync(path("memory"), before, before);
    await damaged(/altered/);
    await make();
    rmSync(path("memory"));
    await damaged(/ENOENT/);
  });

  test("a state that was cut short or altered is refused", async () => {
    await make();
    truncateSync(path("state"), 3);
    await damaged(/has 3 bytes instead of 24/);
    await make();
    writeFileSync(path("state"), STATE.toUpperCase());
    await damaged(/state of its devices was altered/);
    await make();
    rmSync(path("state"));
    await damaged(/ENOENT/);
  });

  test("a header that is damaged, or of another version, is refused", async () => {
    await make();
    const header = readFileSync(path("template.json"), "utf8");
    for (const text of [
      "",
      "{",
      header.replace('"version":1', '"version":2'),
    ]) {
      writeFileSync(path("template.json"), text);
      await damaged(/header is damaged or of another version/);
    }
    writeFileSync(path("template.json"), header.replace("small", "large"));
    await damaged(/made for something else/);
  });

  test("templates of another platform go when one is made, and those beyond eight", async () => {
    await make("before", "small");
    for (let shape = 0; shape < 10; shape++) await make("here", `${shape}`);
    assert(!existsSync(join(root, "before")));
    const left = Array.from({ length: 10 }, (_, shape) =>
      existsSync(join(root, "here", `${shape}`)),
    );
    assert.equal(left.filter(Boolean).length, 8);
    assert.equal(left[9], true);
  });
});
