/** What a machine's process may do on the host: nothing but be this machine. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
} from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { api } from "./harness/api.js";
import { Daemon, tapsOf, traceOf } from "./harness/daemon.js";
import {
  dockerOk,
  inspect,
  removeContainers,
  uniqueName,
} from "./harness/docker.js";
import { busybox, environment } from "./harness/environment.js";
import { eventually } from "./harness/wait.js";

const MiB = 1024 * 1024;
/** The default of `first-machine-uid`. */
const FIRST_UID = 0x70000000;
/** O_ACCMODE of open(2), and its values. */
const ACCESS = { mask: 3, read: 0, write: 1, both: 2 };

interface OpenFile {
  target: string;
  access: number;
}

function openFiles(pid: number): OpenFile[] {
  return readdirSync(`/proc/${pid}/fd`).map((number) => {
    const info = readFileSync(`/proc/${pid}/fdinfo/${number}`, "utf8");
    const flags = parseInt(/^flags:\s+(\d+)$/m.exec(info)?.[1] ?? "", 8);
    return {
      target: readlinkSync(`/proc/${pid}/fd/${number}`),
      access: flags & ACCESS.mask,
    };
  });
}

/** The fields of /proc/PID/status. */
function status(pid: number): Record<string, string> {
  return Object.fromEntries(
    readFileSync(`/proc/${pid}/status`, "utf8")
      .trim()
      .split("\n")
      .map((line) => line.split(/:\s*/, 2).map((part) => part.trim())),
  ) as Record<string, string>;
}

/** The folder of a process's control group that has the controller. */
function groupOf(pid: number, controller: string): string {
  for (const line of readFileSync(`/proc/${pid}/cgroup`, "utf8").split("\n")) {
    const [, names = "", group = ""] = line.split(":");
    if (!names.split(",").includes(controller)) continue;
    return `/sys/fs/cgroup/${controller}${group}`;
  }
  const unified = /^0::(.*)$/m.exec(
    readFileSync(`/proc/${pid}/cgroup`, "utf8"),
  );
  return `/sys/fs/cgroup${unified?.[1]}`;
}

/** Runs a command as somebody. @returns whether it succeeded */
function asUser(uid: number, ...command: string[]): boolean {
  const { status } = spawnSync("setpriv", [
    ...[`--reuid=${uid}`, `--regid=${uid}`, "--clear-groups", "--"],
    ...command,
  ]);
  return status === 0;
}

/** All files below a folder, by their paths in it. */
function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" }).filter(
    (name) => statSync(path.join(folder, name)).isFile(),
  );
}

describe("a machine's process", { skip: !environment().root }, () => {
  const names = [uniqueName("jail"), uniqueName("jail")];
  let pids: number[];
  before(async () => {
    for (const name of names) {
      await dockerOk(["run", "-d", "--name", name, busybox(), "sleep", "1000"]);
    }
    pids = await Promise.all(
      names.map(async (name) => {
        const { json } = await api("GET", `/containers/${name}/json`);
        return (json as { State: { Pid: number } }).State.Pid;
      }),
    );
  });
  after(() => removeContainers(...names));

  test("has a user and a group of its own, and no privilege", () => {
    for (const pid of pids) {
      const found = status(pid);
      const own = String(FIRST_UID + pid);
      assert.deepEqual(found["Uid"]?.split("\t"), [own, own, own, own]);
      assert.deepEqual(found["Gid"]?.split("\t"), [own, own, own, own]);
      assert.equal(found["Groups"], "");
      for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
        assert.equal(found[set], "0000000000000000", set);
      }
      assert.equal(found["NoNewPrivs"], "1");
      assert.equal(found["Seccomp"], "2");
    }
    assert.notEqual(status(pids[0] ?? 0)["Uid"], status(pids[1] ?? 0)["Uid"]);
  });

  test("sees QEMU, its libraries and what the guest boots from, and cannot write", () => {
    for (const pid of pids) {
      const root = `/proc/${pid}/root`;
      assert.deepEqual(readdirSync(root).sort(), [
        "guest",
        "hull-descriptors.so",
        "lib",
        "lib64",
        "usr",
      ]);
      for (const file of filesBelow(root)) {
        assert.match(
          file,
          /^(guest\/(vmlinux|initramfs\.cpio)|hull-descriptors\.so|usr\/bin\/qemu-system-x86_64|.*\/qemu\/accel-[\w-]+\.so|(usr\/)?lib(64)?\/.*\.so[.\d]*|usr\/share\/(qemu|seabios)\/\w[\w.-]+\.(rom|bin))$/,
        );
      }
      const mounts = readFileSync(`/proc/${pid}/mountinfo`, "utf8").trim();
      assert.equal(mounts.split("\n").length, 1, mounts);
      assert.match(mounts, / \/ ro,nosuid,nodev[, ]/);
    }
  });

  test("has namespaces of its own, and in that of the network not even a tap", () => {
    for (const kind of ["mnt", "net", "ipc", "uts"]) {
      const spaces = ["self", ...pids].map((pid) =>
        readlinkSync(`/proc/${pid}/ns/${kind}`),
      );
      assert.equal(new Set(spaces).size, 3, `${kind}: ${spaces.join()}`);
    }
    for (const pid of pids) {
      const devices = readFileSync(`/proc/${pid}/net/dev`, "utf8");
      assert.deepEqual(
        devices.match(/^ *\S+(?=:)/gm)?.map((n) => n.trim()),
        ["lo"],
      );
    }
  });

  test("has open what is its own, and read-only what it shares with others", () => {
    const { dataRoot } = Daemon.shared();
    const written = pids.map((pid) =>
      openFiles(pid)
        .filter(({ access }) => access !== ACCESS.read)
        .map(({ target }) => target)
        .filter((target) => target.startsWith("/")),
    );
    for (const [index, targets] of written.entries()) {
      const id = names[index] ?? "";
      for (const target of targets) {
        assert.match(
          target,
          /\/writable\.img$|\/qemu\.log$|^\/dev\/net\/tun$|^\/dev\/kvm$/,
          id,
        );
      }
      assert(targets.some((target) => target.endsWith("/writable.img")));
    }
    const [one = [], two = []] = written;
    const both = one.filter((target) => two.includes(target));
    assert.deepEqual([...new Set(both)], ["/dev/net/tun"]);

    for (const [index, pid] of pids.entries()) {
      const shared = openFiles(pid).filter(
        ({ target }) =>
          target.startsWith(path.join(dataRoot, "images")) ||
          target.startsWith(path.join(dataRoot, "templates")),
      );
      assert(shared.some(({ target }) => target.endsWith(".erofs")));
      // A daemon that has just started has no template yet.
      const { kind } = traceOf(Daemon.shared(), names[index] ?? "");
      assert.equal(
        shared.some(({ target }) => target.endsWith("/memory")),
        kind !== "cold",
      );
    }
  });

  test("its taps are those of its own NICs", () => {
    const taps = pids.map(tapsOf);
    assert.deepEqual(
      taps.map(({ length }) => length),
      [4, 4],
    );
    assert.equal(new Set(taps.flat()).size, 8, taps.flat().join());
  });

  test("its user can reach no file of any machine, image or template", async () => {
    const { dataRoot, execRoot } = Daemon.shared();
    const { Id: id } = await inspect<{ Id: string }>(names[1] ?? "");
    const uid = FIRST_UID + (pids[0] ?? 0);
    const folder = path.join(execRoot, "m", id.slice(0, 16));
    assert(existsSync(folder), folder);
    const targets = openFiles(pids[1] ?? 0)
      .map(({ target }) => target)
      .filter((target) => target.startsWith(dataRoot));
    assert(targets.length >= 4, targets.join());
    for (const target of targets) {
      assert.equal(asUser(uid, "test", "-w", target), false, target);
      assert.equal(asUser(uid, "test", "-r", target), false, target);
    }
    assert.equal(asUser(uid, "ls", folder), false);
    for (const socket of ["qmp.sock", "agent.sock", "share.sock"]) {
      assert(existsSync(path.join(folder, socket)));
      assert.equal(asUser(uid, "test", "-w", path.join(folder, socket)), false);
    }
    // The commands themselves work for that user.
    assert.equal(asUser(uid, "test", "-r", "/proc/version"), true);
  });

  test("has limits of memory and of threads", () => {
    const groups = pids.map((pid) => {
      const memory = groupOf(pid, "memory");
      const limit = ["memory.limit_in_bytes", "memory.max"]
        .map((name) => path.join(memory, name))
        .find((file) => existsSync(file));
      // The guest's memory, and what QEMU takes besides.
      const bytes = Number(readFileSync(limit ?? "", "utf8"));
      assert(bytes > 512 * MiB && bytes <= 1024 * MiB, String(bytes));
      const tasks = path.join(groupOf(pid, "pids"), "pids.max");
      assert.equal(readFileSync(tasks, "utf8"), "129\n");
      assert.match(
        readFileSync(`/proc/${pid}/limits`, "utf8"),
        /^Max processes +129 +129 /m,
      );
      const members = readFileSync(path.join(memory, "cgroup.procs"), "utf8");
      assert.equal(members, `${pid}\n`);
      return memory;
    });
    assert.notEqual(groups[0], groups[1]);
  });

  test("outlives the daemon, and leaves nothing when it ends", async () => {
    const [pid = 0] = pids;
    const [name = ""] = names;
    const groups = ["memory", "pids"].map((one) => groupOf(pid, one));
    const { Id: id } = await inspect<{ Id: string }>(name);
    await Daemon.shared().crashAndRestart();
    assert.equal(await dockerOk(["exec", name, "echo", "there"]), "there");
    assert.equal(status(pid)["Uid"]?.split("\t")[0], String(FIRST_UID + pid));
    await dockerOk(["rm", "-f", name]);
    const folder = path.join(Daemon.shared().execRoot, "m", id.slice(0, 16));
    await eventually(() => {
      for (const left of [`/proc/${pid}`, ...groups, folder]) {
        assert.equal(existsSync(left), false, left);
      }
    });
  });
});
