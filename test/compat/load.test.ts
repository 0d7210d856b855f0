/** Many containers, many clients: none is refused what it may have, and nothing is left of it. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { Daemon } from "./harness/daemon.js";
import { cliOf } from "./harness/docker.js";
import { effort } from "./harness/effort.js";
import { environment, imageRef } from "./harness/environment.js";
import { fault, figure, mebibytes } from "./harness/figures.js";
import { leftovers } from "./harness/leftovers.js";
import { residentMemory } from "./harness/memory.js";
import { eventually } from "./harness/wait.js";

const MiB = 1024 * 1024;
const IMAGE = imageRef("busybox");
/** Numbers of the long form, as far as the machine allows. */
const CONTAINERS = Number(process.env["HULL_LOAD_CONTAINERS"] ?? 100);
const MINUTES = Number(process.env["HULL_LOAD_MINUTES"] ?? 10);

describe("a daemon under load", { timeout: 7_200_000 }, () => {
  const containers = effort(4, CONTAINERS);
  const clients = effort(3, 20);
  const daemon = new Daemon(path.join(environment().directory, "load"));
  const bridge = `hld${process.pid}`;
  const { docker, ok } = cliOf(daemon, { timeout: 600_000 });
  const names = Array.from({ length: containers }, (_, at) => `standing-${at}`);
  let clean: Record<string, string[]>;
  let memory: number;
  let files: number;
  let disk: number;

  const openFiles = () => readdirSync(`/proc/${daemon.pid}/fd`).length;
  /** That the daemon's state takes, without its own log. */
  const bytesOnDisk = () =>
    Number(
      execFileSync("du", ["-s", "-B1", daemon.dataRoot], {
        encoding: "utf8",
      }).split("\t")[0],
    );
  const run = (name: string) =>
    ok(["run", "-d", "-m", "64m", "--name", name, IMAGE, "sleep", "100000"]);

  before(async () => {
    await daemon.start([
      ...(environment().root ? ["--bridge", bridge] : []),
      // Machines that wait for containers are nobody's leak, and would be counted.
      ...["--warm", "0", "--zygote", "off"],
    ]);
    await ok(["pull", IMAGE]);
    // The first of a kind leaves what all others use: an empty disk, a template.
    await run("first");
    await ok(["rm", "-f", "first"]);
    await eventually(
      () => {
        const now = leftovers(daemon, bridge);
        // That of the size that all of them have is made after the daemon's own one.
        const made = /\/128m-1cpu-\w+\/template\.json$/;
        assert.ok(now["files"]?.some((name) => made.test(name)));
        assert.ok(!now["files"]?.some((name) => name.includes(".draft")));
        assert.deepEqual(now["runtime"], ["m", "trial"]);
        assert.deepEqual(now["machines"], []);
      },
      { timeout: 120_000, what: "the template is made" },
    );
    await daemon.crashAndRestart();
    clean = leftovers(daemon, bridge);
    memory = residentMemory(daemon.pid);
    files = openFiles();
    disk = bytesOnDisk();
  });
  after(() => daemon.destroy());

  test(`runs ${containers} containers that ${clients} clients start at once`, async (t) => {
    figure(t, "memory of the daemon, no container", mebibytes(memory));
    const begin = performance.now();
    const waiting = [...names];
    await atOnce(clients, async () => {
      for (let name = waiting.pop(); name; name = waiting.pop()) {
        await run(name);
      }
    });
    const took = (performance.now() - begin) / 1000;
    figure(t, `start of ${containers} containers`, `${took.toFixed(1)} s`);
    const running = await ok(["ps", "-q"]);
    assert.equal(running.split("\n").length, containers);
    const now = residentMemory(daemon.pid);
    figure(t, `memory of the daemon, ${containers} containers`, mebibytes(now));
    assert.ok(now - memory < 100 * MiB + containers * MiB);
  });

  test("serves again soon after it was killed beside them", async (t) => {
    await daemon.stop("SIGKILL");
    const begin = performance.now();
    daemon.launch();
    await eventually(() => daemon.ping(), { timeout: 120_000, interval: 5 });
    const took = performance.now() - begin;
    figure(
      t,
      `from the daemon's start to serving, ${containers} containers`,
      `${(took / 1000).toFixed(2)} s`,
    );
    const running = (await ok(["ps", "-q"])).split("\n").length;
    fault(
      t,
      "daemon killed beside running containers: containers",
      containers,
      containers - running,
    );
    assert.equal(running, containers);
    assert.equal(await ok(["exec", names[0] ?? "", "echo", "on"]), "on");
  });

  test(`serves ${clients} clients that start, use, stop and remove containers`, async (t) => {
    const end = Date.now() + MINUTES * 60_000;
    const failures: string[] = [];
    let requests = 0;
    const must = async (args: string[], said?: string): Promise<void> => {
      requests++;
      const { code, stdout, stderr } = await docker(args);
      if (code !== 0 || (said !== undefined && stdout.trim() !== said)) {
        failures.push(`${args.join(" ")}: ${code} ${stdout}${stderr}`);
      }
    };
    await atOnce(clients, async (client) => {
      for (let round = 0; round < effort(2, Infinity); round++) {
        const name = `load-${client}-${round}`;
        const standing = names[(client + round * clients) % containers] ?? "";
        await must([
          ...["run", "-d", "-m", "64m", "--name", name],
          ...[IMAGE, "sleep", "100000"],
        ]);
        await must(["exec", name, "echo", name], name);
        await must(["exec", standing, "echo", name], name);
        await must(["stop", "-t", "0", name]);
        await must(["rm", name]);
        if (Date.now() > end) return;
      }
    });
    fault(t, "commands under load", requests, failures.length);
    assert.deepEqual(failures, []);
  });

  test("has nothing left of them when they are gone", async (t) => {
    const waiting = [...names];
    await atOnce(clients, async () => {
      for (let name = waiting.pop(); name; name = waiting.pop()) {
        await ok(["rm", "-f", name]);
      }
    });
    await eventually(() => assert.deepEqual(leftovers(daemon, bridge), clean), {
      timeout: 120_000,
    });
    const now = residentMemory(daemon.pid);
    figure(t, "memory of the daemon after the load", mebibytes(now));
    assert.ok(now - memory < 150 * MiB, `${now - memory} bytes more`);
    const left = leftovers(daemon, bridge);
    for (const kind of ["machines", "links", "rules", "files", "runtime"]) {
      const [was, is] = [clean[kind]?.length, left[kind]?.length];
      figure(t, `left by the load: ${kind}, before and after`, `${was}, ${is}`);
    }
    const more = bytesOnDisk() - disk;
    figure(t, "left by the load: disk", mebibytes(more));
    assert.ok(more < 16 * MiB, `${more} bytes more on disk`);
    try {
      await eventually(() => {
        const open = openFiles();
        assert.ok(open <= files + 4, `${open} open files, ${files} before`);
      });
    } finally {
      figure(
        t,
        "left by the load: open files of the daemon, before and after",
        `${files}, ${openFiles()}`,
      );
    }
  });
});

/** Does `work` for so many clients at the same time. */
async function atOnce(
  clients: number,
  work: (client: number) => Promise<void>,
): Promise<void> {
  await Promise.all(
    Array.from({ length: clients }, (_, client) => work(client)),
  );
}
