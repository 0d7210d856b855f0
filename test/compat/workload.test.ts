import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { ComposeProject } from "./harness/compose.js";
import { docker, inspect } from "./harness/docker.js";
import { environment, imageRef } from "./harness/environment.js";
import { eventually } from "./harness/wait.js";

const skip = environment().root ? false : "needs root";
const REQUESTS = 200;
/** Starting and stopping a database takes its time under emulation. */
const timeout = 240_000;

const FILES = {
  "compose.yaml": `
services:
  db:
    image: ${imageRef("postgres")}
    volumes: [data:/var/lib/postgresql/data]
    restart: always
    healthcheck:
      test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, postgres]
      interval: 2s
      timeout: 30s
      retries: 60
  app:
    image: ${imageRef("notes")}
    environment: { PGHOST: db, PGUSER: postgres, PGPASSWORD: postgres, PGDATABASE: postgres }
    depends_on: { db: { condition: service_healthy } }
    healthcheck:
      test: [CMD, bash, -c, "exec 3<>/dev/tcp/127.0.0.1/3000"]
      interval: 2s
      timeout: 30s
      retries: 60
  proxy:
    image: ${imageRef("nginx")}
    depends_on: { app: { condition: service_healthy } }
    volumes: ["./nginx.conf:/etc/nginx/nginx.conf:ro"]
    ports: ["127.0.0.1:0:80"]
volumes:
  data: {}
`,
  "nginx.conf": `
events {}
http {
  access_log off;
  upstream app { server app:3000; keepalive 4; }
  server {
    listen 80;
    location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
`,
};

describe("a database, an application and a proxy", { skip }, () => {
  const project = new ComposeProject("wl", FILES);
  after(() => project.run(["down", "-v", "-t", "0"]));

  const url = async (path: string) =>
    `http://${await project.ok(["port", "proxy", "80"])}${path}`;
  const count = async () => {
    const answer = await fetch(await url("/count"));
    assert.equal(answer.status, 200);
    return Number(await answer.text());
  };

  test("come up healthy, one after the other", async () => {
    await project.ok(["up", "-d"], { timeout });
    await eventually(count, { timeout: 30_000 });
  });

  test(`answer ${REQUESTS} requests, all of them right`, async () => {
    const base = await url("/notes");
    const text = (number: number) => `note ${number}: ${"x".repeat(number)}`;
    const roundTrip = async (number: number) => {
      const made = await fetch(base, { method: "POST", body: text(number) });
      assert.equal(made.status, 201);
      const read = await fetch(`${base}/${await made.text()}`);
      assert.equal(await read.text(), text(number));
    };
    for (let first = 0; first < REQUESTS / 2; first += 4) {
      await Promise.all([0, 1, 2, 3].map((more) => roundTrip(first + more)));
    }
    assert.equal(await count(), REQUESTS / 2);
  });

  test("keep their data through down and up", async () => {
    await project.ok(["down"], { timeout });
    await project.ok(["up", "-d"], { timeout });
    await eventually(async () => assert.equal(await count(), REQUESTS / 2), {
      timeout: 30_000,
    });
  });

  test("recover when the database is killed", async () => {
    const db = project.container("db");
    const { State, RestartCount } = await inspect(db);
    // Not docker kill, which says that it is not to come back: what kills a machine from outside.
    process.kill(State.Pid, "SIGKILL");
    await eventually(
      async () => {
        const now = await inspect(db);
        assert.equal(now.State.Status, "running");
        assert.ok(now.RestartCount > RestartCount);
      },
      { timeout: 60_000 },
    );
    await eventually(async () => assert.equal(await count(), REQUESTS / 2), {
      timeout: 60_000,
    });
    assert.equal((await docker(["inspect", db])).code, 0);
  });
});
