/** The images the tests run: what is in them and where they are pushed. */
import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import {
  digestOf,
  image,
  index,
  layer,
  type BuiltImage,
  type BuiltIndex,
  type Entry,
  type PackedLayer,
} from "./image-builder.js";
import { contentKey } from "./registry.js";

const PATH =
  "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

/** A file capability as the kernel keeps it: cap_net_raw+ep, revision 2. */
const CAP_NET_RAW_EP = Buffer.from(
  "0100000200200000000000000000000000000000",
  "hex",
);

/** A small Linux of one static busybox, with the users and files tests look for. */
export async function busyboxLayer(): Promise<Buffer> {
  const busybox = readFileSync("/bin/busybox");
  const applets = execFileSync("/bin/busybox", ["--list"], { encoding: "utf8" })
    .split("\n")
    .filter((name) => name && name !== "busybox" && !name.includes("/"));
  const folder = (name: string, mode = 0o755): Entry => ({
    name,
    type: "directory",
    mode,
  });
  return layer([
    folder("bin"),
    folder("dev"),
    folder("etc"),
    folder("home"),
    { ...folder("home/user"), uid: 1000, gid: 1000 },
    folder("lib"),
    folder("proc"),
    folder("root", 0o700),
    folder("sbin"),
    folder("sys"),
    folder("tmp", 0o1777),
    folder("usr"),
    folder("usr/bin"),
    folder("usr/sbin"),
    folder("var"),
    { name: "bin/busybox", type: "file", mode: 0o755, content: busybox },
    ...applets.map((name): Entry => ({
      name: `bin/${name}`,
      type: "link",
      linkname: "bin/busybox",
      mode: 0o755,
    })),
    {
      name: "etc/passwd",
      content:
        "root:x:0:0:root:/root:/bin/sh\n" +
        "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n" +
        "user:x:1000:1000:A User:/home/user:/bin/sh\n",
    },
    {
      name: "etc/group",
      content:
        "root:x:0:\ndaemon:x:1:\nwheel:x:10:root,user\naudio:x:29:user\nuser:x:1000:\n",
    },
    { name: "etc/not-executable", content: "just text\n" },
    {
      name: "bin/bad-interpreter",
      mode: 0o755,
      content: "#!/no/such/interpreter\n",
    },
    {
      name: "bin/not-a-program",
      mode: 0o755,
      content: "\x7fELF but not really\n",
    },
  ]);
}

/** Two layers over busybox that use what layers can do: whiteouts, opaque folders, every entry type. */
export async function layeredLayers(): Promise<Buffer[]> {
  return [
    await layer([
      { name: "data", type: "directory" },
      { name: "data/kept", content: "kept\n" },
      { name: "data/changed", content: "first\n" },
      { name: "data/removed", content: "removed\n" },
      { name: "data/removed-folder", type: "directory" },
      { name: "data/removed-folder/file", content: "gone\n" },
      { name: "data/opaque", type: "directory" },
      { name: "data/opaque/old", content: "old\n" },
      { name: "data/becomes-file", type: "directory" },
      { name: "data/becomes-file/inner", content: "inner\n" },
      { name: "data/becomes-folder", content: "a file\n" },
      { name: "data/link-a", content: "linked\n" },
      { name: "data/link-b", type: "link", linkname: "data/link-a" },
      { name: "data/symlink", type: "symlink", linkname: "kept" },
      { name: "data/absolute", type: "symlink", linkname: "/data/kept" },
      { name: "data/dangling", type: "symlink", linkname: "/no/such/place" },
      { name: "data/fifo", type: "fifo", mode: 0o600 },
      {
        name: "data/null",
        type: "character-device",
        devmajor: 1,
        devminor: 3,
        mode: 0o666,
      },
      { name: "data/setuid", content: "x\n", mode: 0o4755 },
      { name: "data/owned", content: "x\n", uid: 1000, gid: 29, mode: 0o640 },
      { name: "data/sticky", type: "directory", mode: 0o1777 },
      {
        name: "data/capable",
        content: "x\n",
        mode: 0o755,
        pax: {
          "SCHILY.xattr.security.capability": CAP_NET_RAW_EP.toString("latin1"),
          "SCHILY.xattr.user.note": "a note",
        },
      },
      { name: "data/späce and ünïcode", content: "names\n" },
      {
        name: `data/${"long-name-".repeat(15)}/${"deeper-".repeat(10)}`,
        content: "long\n",
      },
      {
        name: "data/old-time",
        content: "x\n",
        mtime: new Date("2001-02-03T04:05:06Z"),
      },
    ]),
    await layer([
      { name: "data/changed", content: "second\n" },
      { name: "data/.wh.removed", content: "" },
      { name: "data/.wh.removed-folder", content: "" },
      { name: "data/opaque", type: "directory" },
      { name: "data/opaque/.wh..wh..opq", content: "" },
      { name: "data/opaque/new", content: "new\n" },
      { name: "data/becomes-file", content: "a file now\n" },
      { name: "data/becomes-folder", type: "directory" },
      { name: "data/becomes-folder/inner", content: "inner\n" },
    ]),
  ];
}

/** Everything the tests pull, by repository and tag. */
export interface TestImage {
  repository: string;
  tag: string;
  image: BuiltImage | BuiltIndex;
}

/** Makes the small images; they differ only in what a test looks at. */
export async function testImages(): Promise<TestImage[]> {
  const base = await busyboxLayer();
  const shell = { config: { Env: [PATH], Cmd: ["sh"] } };
  const busybox = image([base], shell);
  const marker = async (text: string) =>
    layer([{ name: "marker", content: `${text}\n` }]);
  const layered = await layeredLayers();
  return [
    { repository: "busybox", tag: "latest", image: busybox },
    { repository: "busybox", tag: "1.0", image: busybox },
    // Schema 2, gzip, three layers that share busybox's.
    {
      repository: "layers",
      tag: "latest",
      image: image([base, ...layered], shell, "docker"),
    },
    {
      repository: "zstd",
      tag: "latest",
      image: image([base, await marker("zstd")], shell, "oci", "zstd"),
    },
    {
      repository: "plain",
      tag: "latest",
      image: image([base, await marker("plain")], shell, "oci", "none"),
    },
    {
      repository: "multi",
      tag: "latest",
      image: index([
        {
          platform: "linux/arm64/v8",
          image: image([await marker("arm64")], {
            ...shell,
            architecture: "arm64",
            variant: "v8",
          }),
        },
        {
          platform: "linux/amd64",
          image: image([base, await marker("amd64")], shell),
        },
        {
          platform: "windows/amd64",
          image: image([await marker("windows")], { ...shell, os: "windows" }),
        },
      ]),
    },
    {
      repository: "multi-schema2",
      tag: "latest",
      image: index(
        [
          {
            platform: "linux/amd64",
            image: image([base, await marker("list")], shell, "docker"),
          },
          {
            platform: "linux/s390x",
            image: image(
              [await marker("s390x")],
              { ...shell, architecture: "s390x" },
              "docker",
            ),
          },
        ],
        "docker",
      ),
    },
    {
      repository: "arm-only",
      tag: "latest",
      image: index([
        {
          platform: "linux/arm64/v8",
          image: image([await marker("arm64")], {
            ...shell,
            architecture: "arm64",
            variant: "v8",
          }),
        },
      ]),
    },
    {
      repository: "arm-manifest",
      tag: "latest",
      image: image([await marker("arm64")], {
        ...shell,
        architecture: "arm64",
      }),
    },
    {
      repository: "healthcheck",
      tag: "latest",
      image: image([base], {
        config: {
          Env: [PATH],
          Cmd: ["sleep", "1000"],
          Healthcheck: {
            Test: ["CMD", "echo", "from the image"],
            Interval: 500_000_000,
          },
        },
      }),
    },
    {
      repository: "configured",
      tag: "latest",
      image: image([base], {
        config: {
          Env: [PATH, "FROM_IMAGE=yes", "OVERRIDDEN=image"],
          Entrypoint: ["/bin/echo", "entry"],
          Cmd: ["default", "arguments"],
          User: "user",
          WorkingDir: "/work/dir",
          Labels: { "org.example.from": "image", shared: "image" },
          ExposedPorts: { "8080/tcp": {} },
          StopSignal: "SIGINT",
        },
      }),
    },
  ];
}

/** An image of Debian made by debootstrap, kept in the cache folder: a minute once. */
export function debianImage(log: (line: string) => void): BuiltImage {
  return image([packedLayer(debianRoot(log))], {
    config: { Env: [PATH], Cmd: ["bash"] },
  });
}

/**
 * Images of programs people run, out of Debian's packages: PostgreSQL, a small web application on
 * Node.js, nginx. They share one layer, which is kept in the cache folder: one to two minutes once.
 */
export async function serviceImages(
  log: (line: string) => void,
): Promise<TestImage[]> {
  const base = debianRoot(log);
  const file = cached("services", "make-services", (script, half) => {
    log("making a root file system with PostgreSQL, Node.js and nginx, once");
    execFileSync(script, [suite(), base, half], {
      stdio: ["ignore", "ignore", "pipe"],
    });
  });
  const root = packedLayer(file);
  const services = path.join(ROOT, "test/compat/harness/services");
  const own = (names: Record<string, string>) =>
    layer(
      Object.entries(names).map(([name, source]) => ({
        name,
        mode: 0o755,
        content: readFileSync(path.join(services, source)),
      })),
    );
  return [
    {
      repository: "postgres",
      tag: "latest",
      image: image(
        [
          root,
          await own({ "usr/local/bin/entrypoint": "postgres-entrypoint" }),
        ],
        {
          config: {
            Env: [PATH, "PGDATA=/var/lib/postgresql/data"],
            Entrypoint: ["/usr/local/bin/entrypoint"],
            Cmd: ["postgres"],
            ExposedPorts: { "5432/tcp": {} },
            Volumes: { "/var/lib/postgresql/data": {} },
            StopSignal: "SIGINT",
          },
        },
      ),
    },
    {
      repository: "notes",
      tag: "latest",
      image: image([root, await own({ "srv/notes.cjs": "notes.cjs" })], {
        config: {
          Env: [PATH, "NODE_PATH=/usr/share/nodejs"],
          Cmd: ["node", "/srv/notes.cjs"],
          User: "www-data",
          ExposedPorts: { "3000/tcp": {} },
        },
      }),
    },
    {
      repository: "nginx",
      tag: "latest",
      image: image([root], {
        config: {
          Env: [PATH],
          Cmd: ["nginx", "-g", "daemon off; error_log /dev/stderr;"],
          ExposedPorts: { "80/tcp": {} },
          StopSignal: "SIGQUIT",
        },
      }),
    },
  ];
}

/** The file of a small Debian's root, a gzip'd tar. */
function debianRoot(log: (line: string) => void): string {
  return cached("debian", "make-debian", (script, half) => {
    log(
      `making a root file system of Debian ${suite()} with debootstrap, once`,
    );
    execFileSync(script, [suite(), half], {
      stdio: ["ignore", "ignore", "pipe"],
    });
  });
}

/** A gzip'd tar of the cache folder, by the script that makes it. */
function cached(
  name: string,
  scriptName: string,
  make: (script: string, output: string) => void,
): string {
  const cache = path.join(
    process.env["HULL_CACHE"] ||
      path.join(
        process.env["XDG_CACHE_HOME"] ?? path.join(os.homedir(), ".cache"),
        "hull",
      ),
    "compat",
  );
  mkdirSync(cache, { recursive: true });
  const script = path.join(ROOT, "test/compat/harness", scriptName);
  const file = path.join(
    cache,
    `${name}-${suite()}-${contentKey(readFileSync(script))}.tar.gz`,
  );
  if (existsSync(file)) return file;
  const half = `${file}.${process.pid}`;
  try {
    make(script, half);
    writeFileSync(`${half}.diff-id`, digestOf(gunzipSync(readFileSync(half))));
    renameSync(`${half}.diff-id`, `${file}.diff-id`);
    renameSync(half, file);
  } finally {
    rmSync(half, { force: true });
    rmSync(`${half}.diff-id`, { force: true });
  }
  return file;
}

function packedLayer(file: string): PackedLayer {
  return {
    compressed: readFileSync(file),
    diffId: readFileSync(`${file}.diff-id`, "utf8"),
  };
}

/** The host's own Debian release. */
function suite(): string {
  return (
    /VERSION_CODENAME=(\w+)/.exec(
      readFileSync("/etc/os-release", "utf8"),
    )?.[1] ?? "stable"
  );
}
