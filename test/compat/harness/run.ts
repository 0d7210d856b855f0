/**
 * The compatibility tests: makes images, starts registries and a daemon, runs the test files one after
 * the other, and leaves nothing behind.
 *
 *     test/compat/run [--keep] [--name=PATTERN] [FILES…]
 */
import { execFileSync, spawn } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Daemon } from "./daemon.js";
import type { Environment } from "./environment.js";
import { debianImage, serviceImages, testImages } from "./images.js";
import { push, startRegistry, type RunningRegistry } from "./registry.js";

const HERE = path.dirname(fileURLToPath(import.meta.url));
const COMPAT = path.dirname(HERE);
const ROOT = path.resolve(COMPAT, "../..");

const log = (line: string) => console.log(`compat: ${line}`);
/** What has to be undone, last one first. */
const cleanups: (() => void | Promise<void>)[] = [];

async function cleanUp(): Promise<void> {
  for (const cleanup of cleanups.splice(0).reverse()) {
    try {
      await cleanup();
    } catch (error) {
      log(`cleaning up failed: ${String(error)}`);
    }
  }
}

async function main(): Promise<number> {
  const args = process.argv.slice(2);
  const keep = args.includes("--keep");
  const patterns = args
    .filter((arg) => arg.startsWith("--name="))
    .map((arg) => arg.slice(7));
  const named = args.filter((arg) => !arg.startsWith("--"));
  const files = named.length
    ? named.map((file) => path.resolve(file))
    : readdirSync(COMPAT)
        .filter((name) => name.endsWith(".test.ts"))
        .sort()
        .map((name) => path.join(COMPAT, name));

  const root = process.getuid?.() === 0;
  const directory = mkdtempSync(path.join(os.tmpdir(), "hull-ct-"));
  cleanups.push(() => {
    if (keep) log(`kept: ${directory}`);
    else rmSync(directory, { recursive: true, force: true });
  });
  const started = Date.now();

  const registry = async (
    name: string,
    options: Partial<Parameters<typeof startRegistry>[0]> = {},
  ) => {
    const folder = path.join(directory, "registries", name);
    mkdirSync(folder, { recursive: true });
    const running: RunningRegistry = await startRegistry({
      directory: folder,
      ...options,
    });
    cleanups.push(() => running.stop());
    const { host, scheme, ca, user, password } = running;
    return { host, scheme, ca, user, password };
  };
  const registries: Environment["registries"] = {
    plain: await registry("plain"),
    basic: await registry("basic", { auth: "basic" }),
    token: await registry("token", { auth: "token" }),
  };
  if (root) {
    // Certificates of registries on 127.0.0.0/8 are not looked at, so these two have another address.
    const address = loopbackAddress();
    registries.tls = await registry("tls", { tls: true, address });
    registries.untrusted = await registry("untrusted", { tls: true, address });
  }

  const images = await testImages();
  for (const { repository, tag, image } of images) {
    await push(registries.plain, repository, tag, image);
  }
  const [first] = images;
  if (!first) throw new Error("no images");
  for (const one of [
    registries.basic,
    registries.token,
    registries.tls,
    registries.untrusted,
  ]) {
    if (one) await push(one, "private/busybox", "latest", first.image);
  }
  let debian = false;
  if (root) {
    await push(registries.plain, "debian", "latest", debianImage(log));
    for (const { repository, tag, image } of await serviceImages(log)) {
      await push(registries.plain, repository, tag, image);
    }
    debian = true;
  }

  const dockerConfig = path.join(directory, "docker-config");
  mkdirSync(path.join(dockerConfig, "cli-plugins"), { recursive: true });
  const composePlugin = execFileSync(path.join(HERE, "fetch-compose"), {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  }).trim();
  symlinkSync(
    composePlugin,
    path.join(dockerConfig, "cli-plugins", "docker-compose"),
  );
  const daemon = new Daemon(path.join(directory, "d"));
  const environment: Environment = {
    directory,
    dockerConfig,
    compose: composePlugin,
    daemon: daemon.directory,
    registries,
    debian,
    root,
  };
  const environmentFile = path.join(directory, "environment.json");
  writeFileSync(environmentFile, JSON.stringify(environment));

  const flags = daemonArguments(registries, root);
  cleanups.push(() => daemon.destroy(keep));
  await daemon.start(flags);
  log(
    `ready after ${((Date.now() - started) / 1000).toFixed(1)} s; running ${files.length} files`,
  );

  const tests = spawn(
    path.join(ROOT, "scripts/node-test"),
    [
      "compat",
      "--test-concurrency=1",
      ...patterns.map((pattern) => `--test-name-pattern=${pattern}`),
      ...files,
    ],
    {
      cwd: ROOT,
      stdio: "inherit",
      env: { ...process.env, HULL_COMPAT: environmentFile },
    },
  );
  const code = await new Promise<number>((resolve, reject) => {
    tests.once("error", reject);
    tests.once("exit", (exit) => resolve(exit ?? 1));
  });
  if (code !== 0) {
    log("the end of the daemon's log:");
    console.log(daemon.logTail(25));
  }
  return code;
}

/** Flags of the shared daemon: nothing of it collides with another daemon on this host. */
function daemonArguments(
  registries: Environment["registries"],
  root: boolean,
): string[] {
  const args: string[] = [];
  if (root) {
    const bridge = `hct${process.pid}`;
    args.push("--bridge", bridge);
    // A daemon leaves its network to the containers that run on; here nothing is left to run.
    cleanups.push(() => removeBridge(bridge));
  }
  if (registries.tls?.ca) {
    const certificates = path.join("/etc/hull/certs.d", registries.tls.host);
    mkdirSync(certificates, { recursive: true });
    cleanups.push(() => {
      rmSync(certificates, { recursive: true, force: true });
      removeEmpty("/etc/hull/certs.d", "/etc/hull");
    });
    copyFileSync(registries.tls.ca, path.join(certificates, "ca.crt"));
  }
  return args;
}

/** Removes a bridge, what is plugged into it, and its firewall rules. */
function removeBridge(bridge: string): void {
  const ports = `/sys/class/net/${bridge}/brif`;
  const links = existsSync(ports) ? [...readdirSync(ports), bridge] : [];
  for (const link of links) {
    execFileSync("ip", ["link", "del", link], { stdio: "ignore" });
  }
  for (const family of ["ip", "ip6", "bridge"]) {
    try {
      execFileSync("nft", ["delete", "table", family, bridge], {
        stdio: "ignore",
      });
    } catch {
      // There are no rules of that family.
    }
  }
}

function removeEmpty(...directories: string[]): void {
  for (const directory of directories) {
    try {
      rmdirSync(directory);
    } catch {
      // Someone else's files are in it.
    }
  }
}

/** An address of the loopback device outside of 127.0.0.0/8 (RFC 2544's range for tests). */
function loopbackAddress(): string {
  const address = `198.18.${(process.pid >> 8) & 255}.${process.pid & 255}`;
  execFileSync("ip", ["address", "add", `${address}/32`, "dev", "lo"]);
  cleanups.push(
    () =>
      void execFileSync("ip", ["address", "del", `${address}/32`, "dev", "lo"]),
  );
  return address;
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.once(signal, () => {
    void cleanUp().then(() => process.exit(130));
  });
}
let code = 1;
try {
  code = await main();
} catch (error) {
  console.error(error);
} finally {
  await cleanUp();
}
process.exit(code);
