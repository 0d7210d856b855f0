/** From `docker compose up -d` to all healthy, for a project of a store, an application and a proxy. */
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { sideBySide, type Measure } from "../bench.js";
import { Missing, type Engine } from "../engines/engine.js";
import { run, time } from "../processes.js";

/** These take many seconds each: fewer samples say enough. */
const REPEATS = 3;
const TIMEOUT = 600_000;
const PLUGINS = [
  "/usr/libexec/docker/cli-plugins/docker-compose",
  "/usr/lib/docker/cli-plugins/docker-compose",
];
const FETCH = fileURLToPath(
  new URL("../../test/compat/harness/fetch-compose", import.meta.url),
);

const project = (image: string) => `
x-health: &health
  interval: 1s
  timeout: 30s
  retries: 60
services:
  store:
    image: ${image}
    command: [node, /project/store.cjs]
    volumes: ["data:/data", "./:/project:ro"]
    healthcheck: { <<: *health, test: [CMD, wget, -qO, /dev/null, "http://127.0.0.1:3000/"] }
  app:
    image: ${image}
    command: [node, /project/app.cjs]
    volumes: ["./:/project:ro"]
    depends_on: { store: { condition: service_healthy } }
    healthcheck: { <<: *health, test: [CMD, wget, -qO, /dev/null, "http://127.0.0.1:3000/"] }
  proxy:
    image: ${image}
    command: [nginx]
    volumes: ["./proxy.conf:/etc/nginx/site.conf:ro"]
    depends_on: { app: { condition: service_healthy } }
    ports: ["127.0.0.1:0:80"]
    healthcheck: { <<: *health, test: [CMD, wget, -qO, /dev/null, "http://127.0.0.1/"] }
volumes:
  data: {}
`;
/** Counts its visitors in a file. */
const STORE = `
const { readFileSync, writeFileSync } = require("node:fs");
require("node:http").createServer((request, response) => {
  let count = 0;
  try { count = Number(readFileSync("/data/count", "utf8")); } catch {}
  writeFileSync("/data/count", String(count + 1));
  response.end(String(count));
}).listen(3000);
`;
const APP = `
require("node:http").createServer(async (request, response) => {
  const answer = await fetch("http://store:3000/");
  response.end("visitor " + (await answer.text()));
}).listen(3000);
`;
const PROXY = `
server { listen 80; location / { proxy_pass http://app:3000; } }
`;

export const composeMeasure: Measure = {
  name: "compose",
  async run(bench) {
    const compose = await findCompose();
    const image = await bench.images.tools();
    const directory = await bench.scratch.folder("project");
    for (const [name, content] of Object.entries({
      "compose.yaml": project(image),
      "store.cjs": STORE,
      "app.cjs": APP,
      "proxy.conf": PROXY,
    })) {
      await writeFile(path.join(directory, name), content);
    }
    const peers = bench.peers.filter(({ api }) => api);
    const options = (engine: Engine) => ({
      timeout: TIMEOUT,
      env: {
        ...engine.environment,
        DOCKER_HOST: `unix://${engine.api?.socketPath}`,
      },
    });
    const command = (...args: string[]) => [
      ...[compose, "--project-directory", directory],
      ...["--file", path.join(directory, "compose.yaml"), ...args],
    ];
    for (const engine of [bench.hull, ...peers]) {
      await run(engine.pull(image), options(engine));
    }
    return sideBySide(
      bench,
      {
        name: "`docker compose up -d --wait`, three services, to all healthy",
        unit: "s",
        repeats: Math.min(REPEATS, bench.repeats),
      },
      peers,
      async (engine) => {
        try {
          return (
            (await time(command("up", "-d", "--wait"), options(engine))) / 1000
          );
        } finally {
          await run(command("down", "-v", "-t", "0"), options(engine));
        }
      },
    );
  },
};

/** Compose v2: the host's own, or the one of the tests. */
async function findCompose(): Promise<string> {
  const installed = PLUGINS.find((file) => existsSync(file));
  if (installed) return installed;
  try {
    return (await run([FETCH], { timeout: 300_000 })).trim();
  } catch (error) {
    throw new Missing(`no Compose v2: ${(error as Error).message}`);
  }
}
