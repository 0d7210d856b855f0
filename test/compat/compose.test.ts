import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { ComposeProject, runClient } from "./harness/compose.js";
import { dockerode } from "./harness/api.js";
import { Daemon } from "./harness/daemon.js";
import { docker, dockerOk, inspect } from "./harness/docker.js";
import { busybox, environment } from "./harness/environment.js";
import { eventually } from "./harness/wait.js";

const skip = environment().root ? false : "needs root";

/** Serves what a request to itself or to its neighbour needs, says so in its log, and ends on SIGTERM. */
const server = (more: string) =>
  JSON.stringify([
    "sh",
    "-c",
    `trap 'exit 0' TERM; mkdir -p /www; ${more}; httpd -p 80 -h /www; echo serving; while true; do sleep 1 & wait $$!; done`,
  ]);

/** An image that is in the registry once Compose has pushed it. */
const pushed = busybox().replace(/\/[^/]*$/, `/pushed-${process.pid}:latest`);

const FILES = {
  "compose.yaml": `
services:
  store:
    image: ${busybox()}
    command: ${server("sleep 1; echo stored >>/data/file; ln -s /data /www/data; touch /www/ready")}
    healthcheck:
      test: [CMD, wget, -qO, /dev/null, "http://127.0.0.1/ready"]
      interval: 1s
      timeout: 5s
      retries: 30
    volumes: [data:/data]
    networks: [back]
  web:
    image: ${busybox()}
    command: ${server("cp /etc/page /www/index.html; wget -qO /www/copy http://store/data/file")}
    depends_on:
      store: { condition: service_healthy }
    env_file: web.env
    environment: { DIRECT: here }
    ports: ["127.0.0.1:0:80"]
    networks: [back, front]
    restart: unless-stopped
    deploy: { resources: { limits: { memory: 96M, cpus: "0.5" } } }
    configs: [{ source: page, target: /etc/page }]
    secrets: [token]
    labels: { org.example.part: web }
  extra:
    image: ${busybox()}
    profiles: [more]
    command: ["sleep", "600"]
  built:
    image: ${pushed}
    build: .
    profiles: [build]
networks:
  front: {}
  back: { internal: true }
volumes:
  data: {}
configs:
  page: { file: page.html }
secrets:
  token: { file: token.txt }
`,
  "web.env": "FROM_FILE=file\n",
  "page.html": "the page\n",
  "token.txt": "secret\n",
};

interface Listed {
  Service: string;
  State: string;
  Health: string;
  Name: string;
}

describe("Compose v2", { skip }, () => {
  const project = new ComposeProject("cp", FILES);
  let there: string[];
  before(async () => {
    there = await inventory();
  });
  after(async () => {
    await project.run(["--profile", "more", "down", "-v", "-t", "0"]);
  });

  const list = async (...args: string[]): Promise<Listed[]> =>
    (await project.ok(["ps", "--format", "json", ...args]))
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Listed);
  const states = async (...args: string[]) =>
    Object.fromEntries(
      (await list(...args)).map(({ Name, State }) => [
        Name.slice(project.name.length + 1),
        State,
      ]),
    );

  test("config, as a plugin and as a program of its own", async () => {
    const plugin = await project.ok(["config", "--services"]);
    assert.deepEqual(plugin.split("\n").sort(), ["store", "web"]);
    const alone = await runClient(
      environment().compose,
      ["-p", project.name, "config", "--services"],
      { cwd: project.directory },
    );
    assert.equal(alone.stdout.trim(), plugin);
  });

  test("pull and push", async () => {
    await project.ok(["pull", "-q"]);
    await dockerOk(["tag", busybox(), pushed]);
    // Compose pushes what it could build; this was built already.
    await project.ok(["--profile", "build", "push", "-q"]);
    await dockerOk(["rmi", pushed]);
    await dockerOk(["pull", "-q", pushed]);
    await dockerOk(["rmi", pushed]);
  });

  test("up -d waits for health, and makes networks and volumes", async () => {
    await project.ok(["up", "-d"]);
    assert.deepEqual(await states(), {
      "store-1": "running",
      "web-1": "running",
    });
    const [store] = await list("store");
    assert.equal(store?.Health, "healthy");
    const images = await project.ok(["images", "-q"]);
    assert.ok(images.split("\n").every((id) => /^[0-9a-f]{12,64}$/.test(id)));
    // A second time nothing is made anew.
    const { Id } = await inspect(project.container("web"));
    await project.ok(["up", "-d"]);
    assert.equal((await inspect(project.container("web"))).Id, Id);
  });

  test("services find each other by name, and the port is published", async () => {
    const address = await project.ok(["port", "web", "80"]);
    assert.match(address, /^127\.0\.0\.1:\d+$/);
    await eventually(async () => {
      const answer = await fetch(`http://${address}/`);
      assert.equal(await answer.text(), "the page\n");
    });
    const copy = await fetch(`http://${address}/copy`);
    assert.equal(await copy.text(), "stored\n");
  });

  test("environment, configs, secrets and limits arrive", async () => {
    const web = (command: string) =>
      project.ok(["exec", "-T", "web", "sh", "-c", command]);
    assert.equal(await web("echo $FROM_FILE $DIRECT"), "file here");
    assert.equal(await web("cat /run/secrets/token"), "secret");
    const { HostConfig } = await inspect(project.container("web"));
    assert.equal(HostConfig.Memory, 96 * 1024 * 1024);
    assert.equal(HostConfig.NanoCpus, 5e8);
    assert.equal(HostConfig.RestartPolicy.Name, "unless-stopped");
  });

  test("exec passes the exit code on, run --rm leaves no container", async () => {
    const exec = await project.run(["exec", "-T", "web", "sh", "-c", "exit 7"]);
    assert.equal(exec.code, 7);
    const run = await project.run([
      ...["run", "--rm", "-T", "--no-deps", "web"],
      ...["sh", "-c", "cat /etc/page; exit 3"],
    ]);
    assert.deepEqual([run.code, run.stdout], [3, "the page\n"]);
    assert.deepEqual(Object.keys(await states("-a")).sort(), [
      "store-1",
      "web-1",
    ]);
  });

  test("logs, also while they are written, and top", async () => {
    assert.match(await project.ok(["logs", "web"]), /web-1 *\| serving/);
    let follow: { kill: (signal: NodeJS.Signals) => unknown } | undefined;
    const following = project.run(["logs", "-f", "--no-log-prefix", "store"], {
      onStart: (child) => (follow = child),
    });
    await project.ok([
      ...["exec", "-T", "store", "sh", "-c"],
      "echo from exec >/proc/1/fd/1",
    ]);
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    follow?.kill("SIGINT");
    const { stdout } = await following;
    assert.match(stdout, /serving\n/);
    assert.match(await project.ok(["top", "web"]), /httpd -p 80 -h \/www/);
  });

  test("cp, both ways", async () => {
    const file = path.join(project.directory, "copied");
    writeFileSync(file, "to and fro\n");
    await project.ok(["cp", file, "web:/tmp/copied"]);
    await project.ok(["cp", "web:/tmp/copied", `${file}.back`]);
    assert.equal(readFileSync(`${file}.back`, "utf8"), "to and fro\n");
  });

  test("pause, unpause, stop, start, restart and kill, with their events", async () => {
    let events: { kill: (signal: NodeJS.Signals) => unknown } | undefined;
    const watching = project.run(["events", "--json"], {
      timeout: 180_000,
      onStart: (child) => (events = child),
    });
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    await project.ok(["pause", "web"]);
    assert.equal((await states())["web-1"], "paused");
    await project.ok(["unpause", "web"]);
    await project.ok(["stop", "-t", "1", "web"]);
    assert.equal((await states("-a"))["web-1"], "exited");
    await project.ok(["start", "web"]);
    assert.equal((await states())["web-1"], "running");
    await project.ok(["restart", "-t", "1", "web"]);
    assert.equal((await states())["web-1"], "running");
    await project.ok(["kill", "web"]);
    await eventually(async () =>
      assert.equal((await states("-a"))["web-1"], "exited"),
    );
    await project.ok(["up", "-d"]);
    assert.equal((await states())["web-1"], "running");
    events?.kill("SIGINT");
    const actions = (await watching).stdout
      .split("\n")
      .filter((line) => line.startsWith("{"))
      .map((line) => JSON.parse(line) as { service: string; action: string })
      .filter(({ service }) => service === "web")
      .map(({ action }) => action.split(":")[0]);
    for (const action of [
      "pause",
      "unpause",
      "stop",
      "start",
      "restart",
      "kill",
    ]) {
      assert.ok(actions.includes(action), `${action} in ${actions.join()}`);
    }
  });

  test("a changed service is made anew, others stay", async () => {
    const store = await inspect(project.container("store"));
    const web = await inspect(project.container("web"));
    writeFileSync(path.join(project.directory, "web.env"), "FROM_FILE=new\n");
    await project.ok(["up", "-d", "-t", "1"]);
    assert.equal((await inspect(project.container("store"))).Id, store.Id);
    assert.notEqual((await inspect(project.container("web"))).Id, web.Id);
    assert.equal(
      await project.ok(["exec", "-T", "web", "sh", "-c", "echo $FROM_FILE"]),
      "new",
    );
  });

  test("profiles and scaling", async () => {
    await project.ok([
      ...["--profile", "more", "up", "-d", "--no-recreate", "-t", "0"],
      ...["--scale", "extra=2"],
    ]);
    assert.deepEqual(await states(), {
      "extra-1": "running",
      "extra-2": "running",
      "store-1": "running",
      "web-1": "running",
    });
    await project.ok([
      ...["--profile", "more", "up", "-d", "--no-recreate", "-t", "0"],
      ...["--scale", "extra=1"],
    ]);
    assert.deepEqual(Object.keys(await states("extra")), ["extra-1"]);
  });

  test("down keeps the volume, down -v does not, and nothing else is left", async () => {
    const ids = (
      await dockerOk([
        ...["network", "ls", "-q", "--no-trunc"],
        ...["--filter", `name=${project.name}`],
      ])
    ).split("\n");
    assert.equal(bridges(ids).length, 3);
    assert.ok((await inventory()).length > there.length);
    await project.ok(["--profile", "more", "down", "-t", "1"]);
    const volume = `${project.name}_data`;
    await dockerOk(["volume", "inspect", volume]);
    assert.equal(
      await dockerOk([
        ...["run", "--rm", "-v", `${volume}:/data`, busybox()],
        ...["cat", "/data/file"],
      ]),
      "stored",
    );
    await project.ok(["down", "-v"]);
    assert.equal((await docker(["volume", "inspect", volume])).code, 1);
    await eventually(async () => {
      const left = (await inventory()).filter((one) => !there.includes(one));
      assert.deepEqual(left, []);
      assert.deepEqual(bridges(ids), []);
    });
  });
});

describe("Compose v2 with the classic builder", { skip }, () => {
  const project = new ComposeProject("cb", {
    "compose.yaml": `
services:
  app:
    build:
      context: .
      args: { WORD: first }
      labels: { org.example.part: app }
    ports: ["127.0.0.1:0:80"]
`,
    Dockerfile: `
FROM ${busybox()}
ARG WORD
COPY page.html /www/index.html
RUN echo $WORD >/www/word
CMD ${server("true").split("$$").join("$")}
`,
    "page.html": "the page\n",
  });
  const env = { DOCKER_BUILDKIT: "0" };
  const image = `${project.name}-app`;
  after(async () => {
    await project.run(["down", "-t", "0"]);
    await docker(["rmi", "-f", image]);
  });

  /** What the service serves. */
  const page = async (name: string): Promise<string> => {
    const address = await project.ok(["port", "app", "80"]);
    return eventually(async () =>
      (await fetch(`http://${address}/${name}`)).text(),
    );
  };

  test("build makes the service's image, with its arguments and labels", async () => {
    await project.ok(["build"], { env });
    const { Config } = await inspect<{
      Config: { Labels: Record<string, string> };
    }>(image);
    assert.equal(Config.Labels["org.example.part"], "app");
    const word = ["run", "--rm", image, "cat", "/www/word"];
    assert.equal(await dockerOk(word), "first");
    await project.ok(["build", "--build-arg", "WORD=second"], { env });
    assert.equal(await dockerOk(word), "second");
  });

  test("up --build runs it, and makes it anew when its files have changed", async () => {
    await project.ok(["up", "-d", "--build"], { env });
    assert.equal(await page(""), "the page\n");
    assert.equal(await page("word"), "first\n");
    const { Id } = await inspect(project.container("app"));
    writeFileSync(path.join(project.directory, "page.html"), "another\n");
    await project.ok(["up", "-d", "--build", "-t", "0"], { env });
    assert.equal(await page(""), "another\n");
    assert.notEqual((await inspect(project.container("app"))).Id, Id);
  });

  test("a step that fails ends build with its words", async () => {
    const dockerfile = path.join(project.directory, "Dockerfile");
    const good = readFileSync(dockerfile, "utf8");
    writeFileSync(dockerfile, `${good}RUN exit 7\n`);
    const { code, stdout, stderr } = await project.run(["build"], { env });
    writeFileSync(dockerfile, good);
    assert.notEqual(code, 0);
    assert.match(stdout + stderr, /returned a non-zero code: 7/);
  });
});

describe("Compose v1", { skip: skip || noComposeV1() }, () => {
  const project = new ComposeProject(
    "v1",
    {
      "docker-compose.yml": `
version: "3"
services:
  web:
    image: ${busybox()}
    command: ${server("echo first >/www/index.html")}
    ports: ["127.0.0.1:0:80"]
  client:
    image: ${busybox()}
    depends_on: [web]
    command: sh -c 'until wget -qO- http://web/; do sleep 1; done; sleep 600'
`,
    },
    ["docker-compose"],
  );
  after(() => project.run(["down", "-v", "-t", "0"]));

  test("up -d, ps, logs and down", async () => {
    await project.ok(["up", "-d"]);
    const ps = await project.ok(["ps"]);
    assert.match(ps, /_web_1 .* Up .*127\.0\.0\.1:\d+->80\/tcp/);
    await eventually(async () =>
      assert.match(await project.ok(["logs", "client"]), /first/),
    );
    await project.ok(["down", "-t", "0"]);
    assert.equal(
      await dockerOk(["ps", "-aq", "--filter", `name=${project.name}`]),
      "",
    );
  });
});

/** Everything of this daemon that a project could leave: devices, rules, processes, files, objects. */
async function inventory(): Promise<string[]> {
  const daemon = Daemon.shared();
  const networks = (await dockerode().listNetworks()) as {
    Id: string;
    Name: string;
    Options?: Record<string, string>;
  }[];
  const main = networks.find(({ Name }) => Name === "bridge");
  const table = main?.Options?.["com.docker.network.bridge.name"];
  assert.ok(main && table);
  const nft = (...args: string[]) =>
    execFileSync("nft", args, { encoding: "utf8" }).split("\n");
  const tables = nft("list", "tables").filter((line) =>
    line.split(" ")[2]?.startsWith(table),
  );
  const rules = tables.flatMap((line) => nft("list", ...line.split(" ")));
  const files = (folder: string) =>
    readdirSync(folder, { recursive: true, withFileTypes: true }).map((entry) =>
      path.join(entry.parentPath, entry.name),
    );
  const spares = daemon.standing();
  const spareTaps = spares.flatMap(({ taps }) => taps);
  return [
    ...readdirSync("/sys/class/net").filter(
      (name) =>
        name.startsWith(`hl${main.Id.slice(0, 3)}`) &&
        !spareTaps.includes(name),
    ),
    ...networks.map(({ Id }) => `network ${Id}`),
    ...rules.filter((line) => !line.includes("expires")),
    ...daemon.machines().map((pid) => `process ${pid}`),
    ...["containers", "volumes", "networks"].flatMap((kind) =>
      files(path.join(daemon.dataRoot, kind)),
    ),
    ...files(daemon.execRoot).filter(
      (name) => !spares.some(({ folder }) => name.includes(`/${folder}`)),
    ),
  ].filter((name) => !/\/exec\/m$|\/ports\.json$/.test(name));
}

/** Bridges of these networks that are on the host. */
function bridges(networkIds: string[]): string[] {
  const links = execFileSync("ip", ["-details", "link"], { encoding: "utf8" });
  return networkIds.filter((id) => links.includes(`hull:${id}`));
}

function noComposeV1(): string | false {
  try {
    const version = execFileSync("docker-compose", ["--version"], {
      encoding: "utf8",
    });
    return /version 1\./.test(version)
      ? false
      : "docker-compose is not version 1";
  } catch {
    return "docker-compose 1 is not installed";
  }
}
