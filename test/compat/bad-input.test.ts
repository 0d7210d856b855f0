import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { api, messageOf, rawRequest } from "./harness/api.js";
import { Daemon } from "./harness/daemon.js";
import { dockerOk } from "./harness/docker.js";
import { busybox } from "./harness/environment.js";

describe("malformed requests are refused, change nothing and do not hurt the daemon", () => {
  let pid = 0;
  let count = "";
  const containers = () => dockerOk(["ps", "-aq", "--no-trunc"]);

  before(async () => {
    await dockerOk(["pull", "-q", busybox()]);
    pid = Daemon.shared().pid;
    count = await containers();
  });
  after(async () => {
    assert.equal(Daemon.shared().pid, pid);
    await Daemon.shared().ping();
    assert.equal(await containers(), count);
  });

  for (const [what, body] of [
    ["no JSON", "{"],
    ["no JSON at all", "Image=busybox"],
    ["two values", "{} {}"],
    ["an array", []],
    ["a string", '"busybox"'],
    ["null", "null"],
    ["a deep nest", "[".repeat(100_000)],
    [
      "invalid UTF-8",
      Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x31, 0x7d]),
    ],
  ] as const) {
    test(`create: the body is ${what}`, async () => {
      const answer = await api("POST", "/containers/create", body);
      assert.equal(answer.status, 400, answer.text);
      assert.notEqual(messageOf(answer), "");
    });
  }

  test("create: no body, or another content type", async () => {
    const empty = await api("POST", "/containers/create");
    assert.equal(empty.status, 400, empty.text);
    const form = await api("POST", "/containers/create", "a=b", {
      "content-type": "application/x-www-form-urlencoded",
    });
    assert.ok([400, 415].includes(form.status), form.text);
  });

  for (const [field, value] of [
    ["Image", 5],
    ["Env", "A=b"],
    ["Env", [5]],
    ["Cmd", { a: 1 }],
    ["Entrypoint", [null]],
    ["Labels", ["a"]],
    ["Tty", "yes"],
    ["User", 0],
    ["HostConfig", []],
    ["HostConfig", { Memory: "much" }],
    ["HostConfig", { Memory: -5 }],
    ["HostConfig", { NanoCpus: "1" }],
    ["HostConfig", { RestartPolicy: { Name: "sometimes" } }],
    [
      "HostConfig",
      { LogConfig: { Type: "json-file", Config: { "max-size": "many" } } },
    ],
    ["HostConfig", { CapAdd: ["NO_SUCH_CAPABILITY"] }],
    ["HostConfig", { Ulimits: [{ Name: "nofile", Soft: 5, Hard: 1 }] }],
    ["StopSignal", "SIGNONSENSE"],
    ["WorkingDir", "relative"],
  ] as [string, unknown][]) {
    test(`create: ${field} is ${JSON.stringify(value)}`, async () => {
      const answer = await api("POST", "/containers/create", {
        Image: busybox(),
        Cmd: ["true"],
        [field]: value,
      });
      assert.equal(answer.status, 400, `${answer.status} ${answer.text}`);
      assert.notEqual(messageOf(answer), "");
    });
  }

  test("create: an image that is not there", async () => {
    const answer = await api("POST", "/containers/create", {
      Image: "no-such-image",
    });
    assert.equal(answer.status, 404);
    assert.equal(messageOf(answer), "No such image: no-such-image:latest");
  });

  test("create: an invalid image reference", async () => {
    const answer = await api("POST", "/containers/create", {
      Image: "Not A Reference",
    });
    assert.ok([400, 404].includes(answer.status), answer.text);
    assert.match(messageOf(answer), /invalid reference format|No such image/);
  });

  test("a body of 100 MB of JSON", async () => {
    const answer = await api("POST", "/containers/create", {
      Image: busybox(),
      Labels: { long: "x".repeat(100 * 1024 * 1024) },
    }).catch((error: NodeJS.ErrnoException) => error);
    // The answer may come while the client still sends, which some clients see as a closed connection.
    if (answer instanceof Error) {
      assert.match(String(answer.code), /EPIPE|ECONNRESET/);
    } else {
      assert.ok(
        answer.status >= 400 && answer.status < 500,
        String(answer.status),
      );
    }
  });

  test("queries that make no sense", async () => {
    for (const [method, path] of [
      ["GET", "/containers/json?limit=many"],
      ["GET", "/containers/json?filters=not-json"],
      ["GET", "/containers/json?filters=[1]"],
      [
        "GET",
        `/containers/json?filters=${encodeURIComponent('{"nonsense":["x"]}')}`,
      ],
      ["GET", "/events?since=yesterday&until=1"],
      ["GET", "/images/json?filters={"],
      ["POST", "/containers/create?name=%2e%2e%2fescape"],
      ["POST", `/containers/create?name=${"x/".repeat(50)}`],
    ] as const) {
      const answer = await api(
        method,
        path,
        method === "POST" ? { Image: busybox() } : undefined,
      );
      assert.equal(
        answer.status,
        400,
        `${method} ${path}: ${answer.status} ${answer.text}`,
      );
      assert.notEqual(messageOf(answer), "");
    }
  });

  test("paths that do not exist, and methods that a path does not have", async () => {
    const nothing = await api("GET", "/no/such/path");
    assert.equal(nothing.status, 404);
    assert.equal(messageOf(nothing), "page not found");
    const method = await api("PUT", "/containers/json");
    assert.ok([404, 405].includes(method.status), String(method.status));
    const traversal = await api(
      "GET",
      "/containers/..%2f..%2fetc%2fpasswd/json",
    );
    assert.equal(traversal.status, 404);
    const broken = await api("GET", "/containers/%ff%fe/json");
    assert.ok(
      broken.status >= 400 && broken.status < 500,
      String(broken.status),
    );
  });

  test("a session with BuildKit is refused, and its client told what to do", async () => {
    for (const path of ["/session", "/grpc"]) {
      const plain = await api("POST", path);
      assert.equal(plain.status, 400);
      assert.equal(messageOf(plain), "no upgrade proto in request");
      const answer = await rawRequest(
        `POST ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n`,
      );
      assert.match(answer, /^HTTP\/1\.1 400 /);
      assert.match(answer, /hull has no BuildKit: .*DOCKER_BUILDKIT=0/);
    }
  });

  test("bytes that are no HTTP", async () => {
    for (const bytes of [
      "\0\0\0\0\r\n\r\n",
      "GET\r\n\r\n",
      "GET /_ping HTTP/9.9\r\n\r\n",
      `GET /_ping HTTP/1.1\r\nHost: x\r\nX: ${"y".repeat(200_000)}\r\n\r\n`,
      "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
      "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzzzz\r\n",
    ]) {
      const answer = await rawRequest(bytes);
      assert.match(
        answer,
        /^(HTTP\/1\.1 4\d\d |$)/,
        JSON.stringify(bytes.slice(0, 60)),
      );
    }
  });

  test("an upgrade that is cut short, and one to nowhere", async () => {
    const answer = await rawRequest(
      "POST /containers/no-such-container/attach?stream=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
      3_000,
    );
    assert.match(answer, /^HTTP\/1\.1 404 /);
    assert.match(answer, /No such container: no-such-container/);
    await rawRequest(
      "POST /containers/x/attach?stream=1 HTTP/1.1\r\nHost: x\r\nUpgr",
      300,
    );
  });
});
