import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { after, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { StartedTestContainer } from "testcontainers";
import { runClient } from "./harness/compose.js";
import { docker, dockerEnv } from "./harness/docker.js";
import { busybox, environment, imageRef } from "./harness/environment.js";

const skip = environment().root ? false : "needs root";

describe("testcontainers", { skip }, () => {
  let container: StartedTestContainer | undefined;
  after(async () => {
    await container?.stop();
  });

  test("starts PostgreSQL, waits for it, and finds its port", async () => {
    // Read when the library is loaded. Its reaper is an image of a public registry.
    const { DOCKER_HOST, DOCKER_CONFIG } = dockerEnv();
    Object.assign(process.env, {
      DOCKER_HOST,
      DOCKER_CONFIG,
      TESTCONTAINERS_RYUK_DISABLED: "true",
    });
    const { GenericContainer, Wait } = await import("testcontainers");
    container = await new GenericContainer(imageRef("postgres"))
      .withExposedPorts(5432)
      .withCopyContentToContainer([
        { content: "SELECT 6 * 7 AS answer", target: "/tmp/query.sql" },
      ])
      .withWaitStrategy(
        Wait.forAll([
          Wait.forListeningPorts(),
          Wait.forLogMessage("database system is ready to accept connections"),
        ]),
      )
      .withStartupTimeout(180_000)
      .start();
    const query = await container.exec([
      ...["env", "PGPASSWORD=postgres", "psql", "-h", "127.0.0.1"],
      ...["-U", "postgres", "-tA", "-f", "/tmp/query.sql"],
    ]);
    assert.deepEqual([query.exitCode, query.output.trim()], [0, "42"]);
    assert.equal(
      await sslAnswer(container.getHost(), container.getMappedPort(5432)),
      "N",
    );
  });

  test("stops and removes it", async () => {
    assert.ok(container);
    const id = container.getId();
    await container.stop();
    container = undefined;
    assert.equal((await docker(["inspect", id])).code, 1);
  });
});

describe("python3-docker", { skip }, () => {
  test("runs, executes, publishes, lists, stops and removes", async () => {
    const { code, stdout, stderr } = await runClient("python3", [
      fileURLToPath(new URL("harness/docker-client.py", import.meta.url)),
      busybox(),
    ]);
    assert.equal(code, 0, stderr);
    const { version, ...seen } = JSON.parse(stdout) as Record<string, unknown>;
    assert.equal(typeof version, "string");
    assert.deepEqual(seen, {
      ping: true,
      pulled: true,
      output: "hello\n",
      failure: [3, "why\n"],
      status: "running",
      exec: [4, "inside\n"],
      echo: "to and fro",
      listed: true,
      wait: 137,
      gone: 404,
    });
  });
});

/** PostgreSQL's answer to a client that asks for TLS: "S" or "N" (its protocol's SSLRequest). */
async function sslAnswer(host: string, port: number): Promise<string> {
  const socket = net.connect(port, host);
  await once(socket, "connect");
  const request = Buffer.alloc(8);
  request.writeInt32BE(8, 0);
  request.writeInt32BE(80877103, 4);
  socket.write(request);
  const [answer] = (await once(socket, "data")) as [Buffer];
  socket.destroy();
  return answer.toString();
}
