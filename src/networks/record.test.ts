import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { pino } from "pino";
import { RecordFile } from "./record.js";

const log = pino({ level: "silent" });

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "hull-record-"));
  t.after(() => rm(path, { recursive: true }));
  return path;
}

test("a record is read back as it was saved, and the last of several counts", async (t) => {
  const path = join(await folder(t), "networks", "bridge.json");
  const file = new RecordFile(path, log);
  const record = await file.load("bridge");
  assert.match(record.id, /^[0-9a-f]{64}$/);
  const saved = {
    ...record,
    gateway: "172.17.0.1/16",
    lastAddress: "172.17.0.9",
    leases: [{ address: "172.17.0.9", containerId: "c" }],
  };
  file.save(record);
  file.save(record);
  file.save(saved);
  await file.flush();
  assert.deepEqual(await new RecordFile(path, log).load("bridge"), saved);
});

test("a record is written by itself, later, and again after each change", async (t) => {
  const path = join(await folder(t), "bridge.json");
  const file = new RecordFile(path, log);
  const record = await file.load("bridge");
  const written = async () => {
    const text = await readFile(path, "utf8").catch(() => "{}");
    return (JSON.parse(text) as { lastAddress?: string }).lastAddress;
  };
  await file.flush();
  for (const lastAddress of ["172.17.0.2", "172.17.0.3"]) {
    file.save({ ...record, lastAddress });
    assert.notEqual(await written(), lastAddress);
    for (let waited = 0; (await written()) !== lastAddress; waited += 10) {
      assert.ok(waited < 10_000, "it was never written");
      await sleep(10);
    }
  }
  file.save({ ...record, lastAddress: "172.17.0.4" });
  await file.flush();
  assert.equal(await written(), "172.17.0.4");
});

test("a damaged record is set aside and made anew", async (t) => {
  const path = await folder(t);
  await writeFile(join(path, "bridge.json"), '{"version":1,"id":"../x"');
  const record = await new RecordFile(join(path, "bridge.json"), log).load(
    "bridge",
  );
  assert.deepEqual(record.leases, []);
  const [aside = ""] = await readdir(path);
  assert.match(aside, /^bridge\.json\.damaged-\d+$/);
  assert.match(await readFile(join(path, aside), "utf8"), /\.\.\/x/);
});
