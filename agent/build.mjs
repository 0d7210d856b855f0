/**
 * Builds the guest's agent and its initramfs:
 *
 *   build/agent           static, stripped ELF: the script's QuickJS bytecode and the runtime
 *   build/initramfs.cpio  uncompressed newc archive with the agent as /init
 *
 * Needs node's modules, musl-gcc and the Linux headers. Does nothing when its products are newer than
 * all that goes into them.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { writeCpio } from "./cpio.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.dirname(here);
const native = path.join(here, "native");
const quickjs = path.join(root, "node_modules/qjsc/deps/quickjs_2021_03_27");
const output = path.join(root, "build");
const work = path.join(output, "agent.d");
const agent = path.join(output, "agent");
const initramfs = path.join(output, "initramfs.cpio");

const ENGINE = ["quickjs", "libregexp", "libunicode", "cutils"];
// musl has no copies of the kernel's headers; those of the host are looked at last.
const HEADERS = [
  "-idirafter",
  "/usr/include",
  "-idirafter",
  `/usr/include/${triplet()}`,
];
const DEFINES = ['-DCONFIG_VERSION="2021-03-27"', "-D_GNU_SOURCE"];
const COMMON = [
  // Inline, -Os copies and clears byte by byte, which is slow where instructions are emulated.
  "-mstringop-strategy=libcall",
  "-ffunction-sections",
  "-fdata-sections",
  "-fno-asynchronous-unwind-tables",
];
/**
 * What an interpreter does most are its smallest functions, which -Os does not inline. Where instructions are
 * emulated a call and a return cost more than what is between: a start has a quarter fewer blocks to go through.
 */
const SPEED = ["-O2", ...COMMON];
const SIZE = ["-Os", ...COMMON];

function triplet() {
  return { x64: "x86_64-linux-gnu", arm64: "aarch64-linux-gnu" }[process.arch];
}

/** All files below a folder that count as sources. */
function sources(folder) {
  return fs
    .readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.name.endsWith(".test.ts"))
    .map((entry) => path.join(entry.parentPath ?? entry.path, entry.name));
}

function isNewer(product, inputs) {
  if (!fs.existsSync(product)) return false;
  const time = fs.statSync(product).mtimeMs;
  return inputs.every((input) => fs.statSync(input).mtimeMs <= time);
}

function run(command, args, options = {}) {
  return execFileSync(command, args, {
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 64 << 20,
    ...options,
  });
}

/** Compiles C files into objects that are kept, and only anew when they changed. */
function objects(compiler, files, flags, suffix) {
  return files.map((file) => {
    const object = path.join(work, `${path.basename(file, ".c")}${suffix}.o`);
    const inputs = [file, fileURLToPath(import.meta.url)];
    if (file.startsWith(native))
      inputs.push(...sources(native).filter((name) => name.endsWith(".h")));
    if (file.endsWith("main.c")) inputs.push(path.join(work, "bytecode.h"));
    if (!isNewer(object, inputs))
      run(compiler, [
        ...flags,
        ...DEFINES,
        `-I${quickjs}`,
        `-I${work}`,
        "-c",
        file,
        "-o",
        object,
      ]);
    return object;
  });
}

const inputs = [
  ...sources(path.join(here, "src")),
  ...sources(native),
  ...["build.mjs", "cpio.mjs"].map((name) => path.join(here, name)),
  ...sources(path.join(root, "protocol")),
  path.join(root, "package.json"),
];
if (isNewer(agent, inputs) && isNewer(initramfs, inputs)) process.exit(0);
fs.mkdirSync(work, { recursive: true });

// The script.
const version = JSON.parse(
  fs.readFileSync(path.join(root, "package.json"), "utf8"),
).version;
const hash = createHash("sha256");
for (const input of inputs)
  hash.update(path.relative(root, input)).update(fs.readFileSync(input));
const script = path.join(work, "agent.js");
await build({
  entryPoints: [path.join(here, "src/main.ts")],
  outfile: script,
  bundle: true,
  // A script's functions would find each variable around them by a search through all of them.
  format: "esm",
  target: "es2020",
  minify: true,
  logLevel: "warning",
  define: {
    AGENT_VERSION: JSON.stringify(
      `${version}+${hash.digest("hex").slice(0, 12)}`,
    ),
  },
});

// Its bytecode, by a compiler of the same engine.
const engine = ENGINE.map((name) => path.join(quickjs, `${name}.c`));
const compiler = path.join(work, "compile");
const hostObjects = objects(
  "cc",
  [path.join(native, "compile.c"), ...engine],
  ["-O1", "-w"],
  ".host",
);
if (!isNewer(compiler, hostObjects))
  run("cc", ["-o", compiler, ...hostObjects, "-lm", "-lpthread"]);
const bytecode = path.join(work, "bytecode.h");
fs.writeFileSync(bytecode, run(compiler, [script]));

// The ELF.
const own = ["main.c", "heap.c", "init.c", "lend.c", "sys.c", "tree.c"].map(
  (name) => path.join(native, name),
);
const parts = [
  ...objects("musl-gcc", engine, [...SPEED, "-w", ...HEADERS], ""),
  ...objects(
    "musl-gcc",
    own,
    [
      ...SIZE,
      "-Wall",
      "-Wextra",
      "-Wno-unused-parameter",
      "-Wno-cast-function-type",
      ...HEADERS,
    ],
    "",
  ),
];
const linked = path.join(work, "agent");
run("musl-gcc", [
  "-static",
  "-s",
  "-Wl,--gc-sections",
  "-Wl,--build-id=none",
  "-o",
  linked,
  ...parts,
  "-lm",
]);
fs.renameSync(linked, agent);

// The initramfs, put into place in one step: machines may be starting.
const temporary = path.join(work, `initramfs.${os.hostname()}.${process.pid}`);
fs.writeFileSync(
  temporary,
  writeCpio([
    ...["dev", "proc", "sys", "run", "root"].map((name) => ({
      name,
      mode: 0o040755,
    })),
    // For messages of the agent before it has mounted its /dev.
    { name: "dev/console", mode: 0o020600, device: [5, 1] },
    { name: "init", mode: 0o100755, data: fs.readFileSync(agent) },
  ]),
);
fs.renameSync(temporary, initramfs);
const size = (fs.statSync(agent).size / 1e6).toFixed(2);
console.log(
  `built ${path.relative(root, agent)} (${size} MB) and ${path.relative(root, initramfs)}`,
);
