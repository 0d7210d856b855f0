/**
 * Every operation of the published Engine API is asked for once, and what comes back is held against its
 * schema and its list of status codes.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import tar from "tar-stream";
import { api, rawRequest, type Answer } from "./harness/api.js";
import { docker, dockerOk } from "./harness/docker.js";
import { busybox, environment } from "./harness/environment.js";
import { Spec } from "./harness/spec.js";

const VERSION = "/v1.51";
const loaded = Spec.load();

describe(
  "answers are what the published specification says",
  { skip: loaded ? false : "the specification is not beside the project" },
  () => {
    const spec = loaded as Spec;
    const name = "conform";
    let folder: Buffer;

    /** Asks for an operation and checks the answer. `parameters` fill the path's template. */
    const drive = async (
      operation: string,
      options: {
        parameters?: Record<string, string>;
        query?: Record<string, string>;
        body?: unknown;
        headers?: Record<string, string>;
      } = {},
    ): Promise<Answer> => {
      const [method = "", path = ""] = operation.split(" ");
      const target = path.replace(/\{(\w+)\}/g, (_, key: string) => {
        const value = options.parameters?.[key];
        assert.ok(value !== undefined, `${operation}: no ${key} given`);
        return value;
      });
      const query = new URLSearchParams(options.query).toString();
      const answer = await api(
        method,
        `${VERSION}${target}${query && `?${query}`}`,
        options.body,
        options.headers,
      );
      spec.check(method as Parameters<Spec["check"]>[0], path, answer);
      return answer;
    };
    const of = (id: string) => ({ parameters: { id } });
    const succeeds = (answer: Answer) =>
      assert.ok(answer.status < 300, answer.text);

    before(async () => {
      await dockerOk(["pull", "-q", busybox()]);
      folder = await archive({ "from-outside": "text" });
    });
    after(async () => {
      await docker(["rm", "-f", name, `${name}-2`]);
      await docker(["volume", "rm", "-f", name]);
      await docker(["network", "rm", name]);
    });

    test("system", async () => {
      for (const one of [
        "GET /_ping",
        "HEAD /_ping",
        "GET /info",
        "GET /version",
        "GET /system/df",
      ])
        succeeds(await drive(one));
      succeeds(
        await drive("GET /events", {
          query: { since: "0", until: String(Date.now() / 1000) },
        }),
      );
      const { host, user, password } = environment().registries.basic;
      const login = { username: user, password, serveraddress: host };
      succeeds(await drive("POST /auth", { body: login }));
      const wrong = { ...login, password: "wrong" };
      assert.equal((await drive("POST /auth", { body: wrong })).status, 401);
    });

    test("images", async () => {
      const [reference, tag] = splitTag(busybox());
      const image = { parameters: { name: busybox() } };
      const auth = { "X-Registry-Auth": "e30=" };
      succeeds(
        await drive("POST /images/create", {
          query: { fromImage: reference, tag },
        }),
      );
      succeeds(await drive("GET /images/json", { query: { digests: "1" } }));
      succeeds(await drive("GET /images/{name}/json", image));
      succeeds(await drive("GET /images/{name}/history", image));
      succeeds(await drive("GET /distribution/{name}/json", image));
      const copy = { repo: `${reference}-conform`, tag: "one" };
      succeeds(
        await drive("POST /images/{name}/tag", { ...image, query: copy }),
      );
      const pushed = { parameters: { name: copy.repo } };
      succeeds(
        await drive("POST /images/{name}/push", {
          ...pushed,
          query: { tag: copy.tag },
          headers: auth,
        }),
      );
      const one = { parameters: { name: `${copy.repo}:${copy.tag}` } };
      succeeds(await drive("GET /images/{name}/get", one));
      succeeds(await drive("GET /images/get", { query: { names: busybox() } }));
      succeeds(await drive("DELETE /images/{name}", one));
      succeeds(await drive("POST /images/prune"));
      const { bytes } = await docker(["save", busybox()]);
      succeeds(
        await drive("POST /images/load", {
          body: bytes,
          headers: { "content-type": "application/x-tar" },
        }),
      );
      const search = (term: string) =>
        drive("GET /images/search", { query: { term } });
      // Docker Hub may be out of reach, and a registry is no index: see search.test.ts.
      await search("busybox");
      assert.equal((await search(busybox())).status, 500);
      const missing = { parameters: { name: "no-such-image" } };
      for (const operation of [
        "GET /images/{name}/json",
        "GET /images/{name}/history",
        "DELETE /images/{name}",
      ])
        assert.equal((await drive(operation, missing)).status, 404);
    });

    test("containers", async () => {
      succeeds(
        await drive("POST /containers/create", {
          query: { name },
          body: {
            Image: busybox(),
            Cmd: ["sh", "-c", "echo begun; exec sleep 1000"],
            Tty: false,
            OpenStdin: true,
            ExposedPorts: { "80/tcp": {} },
            Labels: { a: "b" },
          },
        }),
      );
      const container = of(name);
      succeeds(await drive("POST /containers/{id}/start", container));
      assert.equal(
        (await drive("POST /containers/{id}/start", container)).status,
        304,
      );
      succeeds(await drive("GET /containers/json", { query: { size: "1" } }));
      succeeds(
        await drive("GET /containers/{id}/json", {
          ...container,
          query: { size: "1" },
        }),
      );
      succeeds(await drive("GET /containers/{id}/top", container));
      succeeds(
        await drive("GET /containers/{id}/logs", {
          ...container,
          query: { stdout: "1" },
        }),
      );
      succeeds(
        await drive("GET /containers/{id}/stats", {
          ...container,
          query: { stream: "0" },
        }),
      );
      succeeds(await drive("GET /containers/{id}/changes", container));
      succeeds(await drive("GET /containers/{id}/export", container));
      await drive("POST /containers/{id}/resize", {
        ...container,
        query: { h: "20", w: "70" },
      });
      succeeds(
        await drive("POST /containers/{id}/update", {
          ...container,
          body: { RestartPolicy: { Name: "no" } },
        }),
      );
      succeeds(await drive("POST /containers/{id}/pause", container));
      succeeds(await drive("GET /containers/{id}/json", container));
      succeeds(await drive("POST /containers/{id}/unpause", container));
      succeeds(
        await drive("POST /containers/{id}/attach", {
          ...container,
          query: { logs: "1", stdout: "1", stream: "0" },
        }),
      );
      await upgradeWebSocket(`${VERSION}/containers/${name}/attach/ws`);
      spec.driven.add("GET /containers/{id}/attach/ws");
      succeeds(
        await drive("PUT /containers/{id}/archive", {
          ...container,
          query: { path: "/tmp" },
          body: folder,
          headers: { "content-type": "application/x-tar" },
        }),
      );
      for (const method of ["HEAD", "GET"])
        succeeds(
          await drive(`${method} /containers/{id}/archive`, {
            ...container,
            query: { path: "/tmp" },
          }),
        );
      await exec();
      succeeds(
        await drive("POST /commit", {
          query: { container: name, repo: name, tag: "one" },
          body: {},
        }),
      );
      succeeds(
        await drive("POST /containers/{id}/rename", {
          ...container,
          query: { name: `${name}-2` },
        }),
      );
      await drive("POST /containers/{id}/rename", {
        ...of(`${name}-2`),
        query: { name },
      });
      succeeds(
        await drive("POST /containers/{id}/restart", {
          ...container,
          query: { t: "0" },
        }),
      );
      succeeds(
        await drive("POST /containers/{id}/kill", {
          ...container,
          query: { signal: "KILL" },
        }),
      );
      succeeds(await drive("POST /containers/{id}/wait", container));
      assert.equal(
        (await drive("POST /containers/{id}/kill", container)).status,
        409,
      );
      assert.equal(
        (await drive("POST /containers/{id}/stop", container)).status,
        304,
      );
      succeeds(await drive("GET /containers/json", { query: { all: "1" } }));
      succeeds(await drive("DELETE /containers/{id}", container));
      succeeds(
        await drive("POST /containers/prune", {
          query: { filters: JSON.stringify({ label: ["no-such-label"] }) },
        }),
      );
      for (const operation of spec.operations.filter((one) =>
        one.includes("/containers/{id}"),
      )) {
        if (operation.endsWith("/ws")) continue;
        const answer = await drive(operation, {
          ...of(name),
          query: { path: "/", name: "x1", stdout: "1", h: "1", w: "1" },
        });
        assert.equal(answer.status, 404, answer.text);
      }
    });

    const exec = async () => {
      const made = await drive("POST /containers/{id}/exec", {
        ...of(name),
        body: { Cmd: ["true"], AttachStdout: true },
      });
      succeeds(made);
      const one = of((made.json as { Id: string }).Id);
      succeeds(await drive("GET /exec/{id}/json", one));
      succeeds(
        await drive("POST /exec/{id}/start", {
          ...one,
          body: { Detach: false, Tty: false },
        }),
      );
      succeeds(await drive("GET /exec/{id}/json", one));
      const terminal = await drive("POST /containers/{id}/exec", {
        ...of(name),
        body: { Cmd: ["sleep", "100"], AttachStdout: true, Tty: true },
      });
      const { Id } = terminal.json as { Id: string };
      const body = { Detach: true, Tty: true };
      succeeds(await drive("POST /exec/{id}/start", { ...of(Id), body }));
      succeeds(
        await drive("POST /exec/{id}/resize", {
          ...of(Id),
          query: { h: "20", w: "70" },
        }),
      );
      assert.equal((await drive("GET /exec/{id}/json", of("x"))).status, 404);
    };

    test("networks", async () => {
      succeeds(await drive("GET /networks"));
      succeeds(await drive("GET /networks/{id}", of("bridge")));
      succeeds(
        await drive("POST /networks/create", {
          body: { Name: name, Labels: { a: "b" } },
        }),
      );
      await dockerOk(["create", "--name", name, busybox()]);
      const body = { Container: name };
      const network = of(name);
      succeeds(
        await drive("POST /networks/{id}/connect", { ...network, body }),
      );
      succeeds(await drive("GET /networks/{id}", network));
      succeeds(await drive("GET /containers/{id}/json", of(name)));
      succeeds(
        await drive("POST /networks/{id}/disconnect", { ...network, body }),
      );
      await dockerOk(["rm", name]);
      succeeds(await drive("DELETE /networks/{id}", network));
      assert.equal(
        (await drive("DELETE /networks/{id}", of("bridge"))).status,
        403,
      );
      assert.equal((await drive("GET /networks/{id}", of("x"))).status, 404);
      succeeds(await drive("POST /networks/prune"));
    });

    test("volumes", async () => {
      const volume = { parameters: { name } };
      succeeds(
        await drive("POST /volumes/create", {
          body: { Name: name, Labels: { a: "b" } },
        }),
      );
      succeeds(await drive("GET /volumes"));
      succeeds(await drive("GET /volumes/{name}", volume));
      succeeds(await drive("DELETE /volumes/{name}", volume));
      assert.equal((await drive("GET /volumes/{name}", volume)).status, 404);
      assert.equal((await drive("DELETE /volumes/{name}", volume)).status, 404);
      succeeds(await drive("POST /volumes/prune"));
      await drive("PUT /volumes/{name}", {
        ...volume,
        query: { version: "1" },
        body: {},
      });
    });

    test("builds", async () => {
      succeeds(
        await drive("POST /build", {
          query: { t: `${name}:built` },
          body: await archive({
            Dockerfile: `FROM ${busybox()}\nLABEL x=y\n`,
          }),
          headers: { "content-type": "application/x-tar" },
        }),
      );
      succeeds(await drive("POST /build/prune"));
      await docker(["rmi", `${name}:built`, `${name}:one`]);
      assert.equal((await drive("POST /session")).status, 400);
    });

    test("swarm, services and plugins answer as an engine without them", async () => {
      const groups = /^(\w+) \/(swarm|nodes|services|tasks|secrets|configs)\b/;
      for (const operation of spec.operations.filter((one) =>
        groups.test(one),
      )) {
        const answer = await drive(operation, {
          ...of("x"),
          query: { version: "1", token: "x" },
          ...(operation.startsWith("POST") ? { body: {} } : {}),
        });
        assert.ok(answer.status >= 400, `${operation}: ${answer.text}`);
      }
      for (const operation of spec.operations.filter((one) =>
        one.includes(" /plugins"),
      ))
        await drive(operation, {
          parameters: { name: "x" },
          query: { remote: "x", name: "x", timeout: "1" },
          ...(operation.startsWith("POST") ? { body: [] } : {}),
        });
      const install = await drive("GET /plugins/privileges", {
        query: { remote: "x" },
      });
      assert.match(install.text, /plugins are not supported on this platform/);
    });

    test("every operation was driven, and none is missing", (t) => {
      const { operations, driven, missing, problems } = spec;
      t.diagnostic(
        `${driven.size} of ${operations.length} operations driven, ${missing.size} of them answered 501`,
      );
      assert.deepEqual(
        operations.filter((operation) => !driven.has(operation)),
        [],
      );
      assert.deepEqual([...missing], []);
      assert.deepEqual(problems, []);
    });
  },
);

function splitTag(reference: string): [string, string] {
  const colon = reference.lastIndexOf(":");
  return [reference.slice(0, colon), reference.slice(colon + 1)];
}

/** A tar archive of text files. */
async function archive(files: Record<string, string>): Promise<Buffer> {
  const pack = tar.pack();
  for (const [name, text] of Object.entries(files)) pack.entry({ name }, text);
  pack.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of pack) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

async function upgradeWebSocket(path: string): Promise<void> {
  const answer = await rawRequest(
    `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    500,
  );
  assert.match(answer, /^HTTP\/1\.1 101 /);
}
