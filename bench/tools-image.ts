/**
 * An image with the machine's own programs in it: what serves and what asks in the network's figures,
 * and Node.js. Every engine runs the same files.
 */
import { readdirSync, readFileSync, realpathSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { Missing } from "./engines/engine.js";
import type { ImageFile } from "./image-layout.js";
import { findProgram, run } from "./processes.js";

const PROGRAMS = ["nginx", "wrk", "iperf3", "node"];
/** What nginx answers with: a small page. */
const PAGE = `${"hull ".repeat(200)}\n`;
const NGINX = `
user root;
daemon off;
error_log /dev/null;
pid /tmp/nginx.pid;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path /tmp/nginx-body;
  proxy_temp_path /tmp/nginx-proxy;
  fastcgi_temp_path /tmp/nginx-fastcgi;
  uwsgi_temp_path /tmp/nginx-uwsgi;
  scgi_temp_path /tmp/nginx-scgi;
  include /etc/nginx/site*.conf;
}
`;
const SITE = `
server { listen 80; root /www; }
`;
/** Where npm's own files are in the image. */
const NPM = "usr/lib/node_modules/npm";
/** Starts npm: the image's file system keeps no links of its own. */
const NPM_PROGRAM = `#!/bin/sh\nexec node /${NPM}/bin/npm-cli.js "$@"\n`;

/**
 * The layers above busybox.
 * @throws {Missing} a program is not installed
 */
export async function toolsLayers(): Promise<ImageFile[][]> {
  const found = PROGRAMS.map((name) => {
    const file = findProgram(name);
    if (!file) throw new Missing(`${name} is not installed`);
    return { name, file: realpathSync(file) };
  });
  const libraries = new Set<string>();
  for (const { file } of found) {
    for (const library of await librariesOf(file)) libraries.add(library);
  }
  const program = (path: string, content: Buffer): ImageFile => ({
    path,
    content,
    mode: 0o755,
  });
  const text = (path: string, content: string): ImageFile => ({
    path,
    content: Buffer.from(content),
  });
  return [
    [
      ...[...libraries].map((path) =>
        program(path.slice(1), readFileSync(path)),
      ),
      ...found.map(({ name, file }) =>
        program(`usr/bin/${name}`, readFileSync(file)),
      ),
    ],
    [
      ...npmFiles(),
      program("usr/bin/npm", Buffer.from(NPM_PROGRAM)),
      text("etc/nginx/nginx.conf", NGINX),
      text("etc/nginx/site.conf", SITE),
      text("www/index.html", PAGE),
      text("tmp/.keep", ""),
      text("var/log/nginx/.keep", ""),
      text("usr/share/nginx/.keep", ""),
    ],
  ];
}

async function librariesOf(program: string): Promise<string[]> {
  const listed = await run(["ldd", program], { env: { LC_ALL: "C" } });
  return [...listed.matchAll(/(\/\S+) \(0x/g)].map(([, path = ""]) => path);
}

function npmFiles(): ImageFile[] {
  const npm = findProgram("npm");
  if (!npm) throw new Missing("npm is not installed");
  const root = dirname(dirname(realpathSync(npm)));
  return (
    readdirSync(root, { recursive: true, encoding: "utf8" })
      // Neither manuals, nor what npm has of other programs' tests.
      .filter((path) => !/^(docs|man)\//.test(path))
      .map((path) => ({ path, file: join(root, path) }))
      .filter(({ file }) => statSync(file).isFile())
      .map(({ path, file }) => ({
        path: `${NPM}/${path}`,
        content: readFileSync(file),
      }))
  );
}
