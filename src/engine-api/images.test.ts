import assert from "node:assert/strict";
import { request } from "node:http";
import { describe, it, type TestContext } from "node:test";
import { noErofs } from "../images/layers/test-erofs.js";
import { TestRegistry } from "../images/registry/test-registry.js";
import { openService, type TestService } from "../images/test-service.js";
import { imageRoutes } from "./images.js";
import { serve, type TestServer } from "./test-server.js";

interface Setup {
  registry: TestRegistry;
  images: TestService;
  server: TestServer;
  /** "127.0.0.1:PORT/team/app" */
  app: string;
}

async function setup(t: TestContext): Promise<Setup> {
  const registry = await TestRegistry.start(t);
  const images = await openService(t);
  const server = await serve(t, imageRoutes(images.service));
  return { registry, images, server, app: `${registry.host}/team/app` };
}

function lines(text: string): Record<string, unknown>[] {
  return text
    .trim()
    .split("\r\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

describe("image endpoints", { skip: noErofs }, () => {
  it("pull, and serve images whose names have slashes, colons and digests", async (t) => {
    const { registry, server, app } = await setup(t);
    const image = registry.add("1");
    const pulled = await server.request(
      "POST",
      `/v1.51/images/create?fromImage=${encodeURIComponent(app)}&tag=1`,
    );
    assert.equal(pulled.status, 200);
    assert.equal(pulled.headers["content-type"], "application/json");
    const messages = lines(pulled.text);
    assert.deepEqual(messages[0], { status: "Pulling from team/app", id: "1" });
    assert.equal(
      messages.at(-1)?.["status"],
      `Status: Downloaded newer image for ${app}:1`,
    );
    for (const name of [
      `${app}:1`,
      `${app}@${image.digest}`,
      encodeURIComponent(`${app}:1`),
      image.id,
    ]) {
      const found = await server.request("GET", `/images/${name}/json`);
      assert.equal(found.status, 200, name);
      assert.equal((found.json() as { Id: string }).Id, image.id);
    }
    const history = await server.request("GET", `/images/${app}:1/history`);
    assert.equal((history.json() as unknown[]).length, 1);
    const tagged = await server.request(
      "POST",
      `/images/${app}:1/tag?repo=x/y&tag=z`,
    );
    assert.deepEqual([tagged.status, tagged.text], [201, ""]);
    const removed = await server.request("DELETE", "/images/x/y:z");
    assert.deepEqual(removed.json(), [{ Untagged: "x/y:z" }]);
    const distribution = await server.request(
      "GET",
      `/distribution/${app}:1/json`,
    );
    assert.equal(
      (distribution.json() as { Descriptor: { digest: string } }).Descriptor
        .digest,
      image.digest,
    );
  });

  it("list in the shape the client's version knows", async (t) => {
    const { registry, images, server, app } = await setup(t);
    const { digest } = registry.add("1");
    await images.pull(`${app}@${digest}`);
    await images.service.tag(`${app}@${digest}`, "x", "");
    await images.service.remove(`${app}@${digest}`, false);
    registry.add("2", { layers: [[{ name: "other" }]] });
    await images.pull(`${app}:2`);
    await images.service.tag(`${app}:2`, "x", "");
    const list = async (version: string) =>
      (
        await server.request(
          "GET",
          `/v${version}/images/json?filters=${encodeURIComponent('{"dangling":["true"]}')}`,
        )
      ).json() as Record<string, unknown>[];
    const [current] = await list("1.51");
    assert.deepEqual(current?.["RepoTags"], []);
    assert.ok(!("VirtualSize" in (current ?? {})));
    const [old] = await list("1.40");
    assert.deepEqual(old?.["RepoTags"], ["<none>:<none>"]);
    assert.deepEqual(old?.["RepoDigests"], ["<none>@<none>"]);
    assert.equal(old?.["VirtualSize"], old?.["Size"]);
  });

  const bad: [method: string, path: string, status: number, message: RegExp][] =
    [
      ["GET", "/images/nope/json", 404, /^No such image: nope:latest$/],
      ["GET", "/images/a/b/c/history", 404, /No such image: a\/b\/c:latest/],
      ["GET", "/images/Nope/json", 400, /must be lowercase/],
      ["DELETE", "/images/nope", 404, /No such image/],
      ["DELETE", "/images/%20", 400, /cannot be blank/],
      ["POST", "/images/nope/tag?repo=x", 404, /No such image/],
      ["POST", "/images/nope/tag", 400, /repo/],
      ["POST", "/images/nope/tag?repo=x&tag=a%20b", 400, /invalid tag format/],
      ["GET", "/images/json?filters=junk", 400, /invalid filter/],
      [
        "GET",
        "/images/json?filters=%7B%22no%22%3A%5B%22x%22%5D%7D",
        400,
        /invalid filter 'no'/,
      ],
      [
        "POST",
        "/images/prune?filters=%7B%22since%22%3A%5B%22x%22%5D%7D",
        400,
        /invalid filter 'since'/,
      ],
      ["POST", "/images/create?fromImage=", 400, /invalid reference format/],
      [
        "POST",
        "/images/create?fromImage=a%20b",
        400,
        /invalid reference format/,
      ],
      ["POST", "/images/create?fromImage=x&tag=/", 400, /invalid tag format/],
      [
        "POST",
        "/images/create?fromImage=x&tag=sha256:12",
        400,
        /invalid checksum digest/,
      ],
      [
        "POST",
        "/images/create?fromImage=x&tag=1&platform=a/b/c/d",
        400,
        /platform/,
      ],
      ["GET", "/images/search?term=x&limit=1000", 400, /outside the range/],
      ["GET", "/distribution/UP/json", 400, /lowercase/],
    ];
  for (const [method, path, status, message] of bad) {
    it(`answer ${method} ${path} with ${status}`, async (t) => {
      const { server } = await setup(t);
      const answer = await server.request(method, path);
      assert.equal(answer.status, status, answer.text);
      assert.match((answer.json() as { message: string }).message, message);
    });
  }

  it("answer a pull that fails at once with its status, later in the stream", async (t) => {
    const { registry, server, app } = await setup(t);
    const missing = await server.request(
      "POST",
      `/images/create?fromImage=${app}&tag=none`,
    );
    assert.equal(missing.status, 404);
    assert.deepEqual(missing.json(), {
      message: `manifest for ${app}:none not found: manifest unknown: manifest unknown`,
    });
    registry.add("hostile", { layers: [[{ name: "../x" }]] });
    const hostile = await server.request(
      "POST",
      `/images/create?fromImage=${app}&tag=hostile`,
    );
    assert.equal(hostile.status, 200);
    const last = lines(hostile.text).at(-1);
    assert.match(String(last?.["error"]), /^failed to register layer: /);
    assert.deepEqual(last?.["errorDetail"], { message: last?.["error"] });
  });

  it("use the credentials of X-Registry-Auth and refuse malformed ones", async (t) => {
    const { registry, server, app } = await setup(t);
    registry.add("1");
    registry.intercept = (req, res) => {
      if (
        req.headers.authorization ===
        `Basic ${Buffer.from("u:p").toString("base64")}`
      )
        return false;
      res.writeHead(401, { "WWW-Authenticate": 'Basic realm="r"' }).end();
      return true;
    };
    const create = `/images/create?fromImage=${app}&tag=1`;
    const auth = (text: string) => ({
      "X-Registry-Auth": Buffer.from(text).toString("base64url"),
    });
    const bare = await server.request("POST", create);
    assert.equal(bare.status, 500);
    assert.match(bare.text, /no basic auth credentials/);
    const malformed = await server.request(
      "POST",
      create,
      undefined,
      auth("{"),
    );
    assert.equal(malformed.status, 400);
    assert.match(malformed.text, /invalid X-Registry-Auth header/);
    const good = await server.request(
      "POST",
      create,
      undefined,
      auth('{"username":"u","password":"p"}'),
    );
    assert.equal(good.status, 200);
    const distribution = await server.request(
      "GET",
      `/distribution/${app}:1/json`,
      undefined,
      auth('{"username":"u","password":"x"}'),
    );
    assert.equal(distribution.status, 401);
  });

  it("end a pull whose client has gone", async (t) => {
    const { registry, images, server, app } = await setup(t);
    const image = registry.add("1");
    let gone = false;
    registry.intercept = (req, res) => {
      if (!(req.url ?? "").endsWith(image.layers[0]?.digest ?? ""))
        return false;
      res.on("close", () => (gone = true));
      res.writeHead(200, { "Content-Length": image.layers[0]?.size ?? 0 });
      res.write("x");
      return true;
    };
    await new Promise<void>((resolve, reject) => {
      const req = request(
        {
          socketPath: server.path,
          method: "POST",
          path: `/images/create?fromImage=${app}&tag=1`,
        },
        (res) => {
          res.on("error", () => {});
          res.once("data", () => {
            setTimeout(() => req.destroy(), 50);
          });
          res.once("close", resolve);
        },
      );
      req.on("error", reject);
      req.end();
    });
    const deadline = Date.now() + 5000;
    while (!gone || (await images.files()).length > 0) {
      assert.ok(Date.now() < deadline, "the pull goes on");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  });
});
