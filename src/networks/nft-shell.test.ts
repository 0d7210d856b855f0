import assert from "node:assert/strict";
import { test } from "node:test";
import { hasTool, runTool } from "./command.js";
import { NftShell } from "./nft-shell.js";

const skip =
  process.geteuid?.() !== 0
    ? "not root"
    : !(await hasTool("nft")) && "the program nft is not installed";
const table = `bridge hull-test-${process.pid}`;

test(
  "a group is done as a whole or not at all, and the next is not disturbed",
  { skip },
  async (t) => {
    const nft = new NftShell();
    t.after(async () => {
      await nft.close();
      await runTool("nft", ["delete", "table", ...table.split(" ")]);
    });
    const results = await Promise.allSettled([
      nft.run([`add table ${table}`, `add chain ${table} first`]),
      nft.run([`add chain ${table} half`, `flush chain ${table} nowhere`]),
      nft.run([]),
      nft.run([`add chain ${table} half no-such-word`]),
      nft.run([`add chain ${table} last`]),
    ]);
    assert.deepEqual(
      results.map(({ status }) => status),
      ["fulfilled", "rejected", "fulfilled", "rejected", "fulfilled"],
    );
    const [, second] = results;
    assert.ok(second?.status === "rejected");
    assert.match(String(second.reason), /^SystemError: nft: .*No such file/);
    const rules = await runTool("nft", ["list", "table", ...table.split(" ")]);
    assert.match(rules, /chain first/);
    assert.match(rules, /chain last/);
    assert.doesNotMatch(rules, /half/);
  },
);

test("a process that somebody killed is started again", { skip }, async (t) => {
  const nft = new NftShell();
  t.after(() => nft.close());
  await nft.run([]);
  const killed = await runTool("pgrep", [
    ...["--parent", String(process.pid)],
    ...["--full", "nft --interactive"],
  ]);
  process.kill(Number(killed.trim()), "SIGKILL");
  await nft.run([]);
  await nft.run([]);
});
