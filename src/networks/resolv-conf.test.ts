import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { hostResolvConf, parseResolvConf, reachable } from "./resolv-conf.js";

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "hull-resolv-"));
  t.after(() => rm(path, { recursive: true }));
  return path;
}

test("nameservers, search and options are read; comments and nonsense are not", () => {
  assert.deepEqual(
    parseResolvConf(
      [
        "# written by hand",
        "domain old.example",
        "nameserver 192.0.2.53 ; the near one",
        "nameserver\t2001:db8::53",
        "nameserver not-an-address",
        "search a.example b.example",
        "options ndots:2",
        "options edns0 trust-ad",
        "lookup file bind",
        "",
      ].join("\n"),
    ),
    {
      nameservers: ["192.0.2.53", "2001:db8::53"],
      search: ["a.example", "b.example"],
      options: ["ndots:2", "edns0", "trust-ad"],
    },
  );
});

test("a search for the root means no search", () => {
  assert.deepEqual(parseResolvConf("search .\n").search, []);
});

test("loopback and IPv6 resolvers are none a container could reach", () => {
  assert.deepEqual(
    reachable(["127.0.0.1", "127.0.0.53", "::1", "2001:db8::1", "192.0.2.1"]),
    ["192.0.2.1"],
  );
});

test("a host with loopback resolvers only gives Docker's fallback, its search kept", async (t) => {
  const path = join(await folder(t), "resolv.conf");
  await writeFile(path, "nameserver 127.0.0.1\nsearch lan\n");
  assert.deepEqual(hostResolvConf(path), {
    nameservers: ["8.8.8.8", "8.8.4.4"],
    search: ["lan"],
    options: [],
  });
});

test("systemd-resolved's stub is replaced by what it asks", async (t) => {
  const path = await folder(t);
  await writeFile(join(path, "stub"), "nameserver 127.0.0.53\n");
  await writeFile(join(path, "real"), "nameserver 192.0.2.7\nsearch corp\n");
  assert.deepEqual(hostResolvConf(join(path, "stub"), join(path, "real")), {
    nameservers: ["192.0.2.7"],
    search: ["corp"],
    options: [],
  });
});

test("a host without the file gives the fallback", async (t) => {
  const conf = hostResolvConf(join(await folder(t), "none"));
  assert.deepEqual(conf.nameservers, ["8.8.8.8", "8.8.4.4"]);
});
