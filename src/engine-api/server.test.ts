import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { type AddressInfo, connect } from "node:net";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { pino } from "pino";
import { z } from "zod";
import {
  Conflict,
  Forbidden,
  InvalidParameter,
  NotFound,
  NotModified,
  SystemError,
  Unauthorized,
  Unavailable,
} from "../errors.js";
import { MAX_JSON, readJson } from "./body.js";
import type { ApiRouter } from "./context.js";
import {
  queryBoolean,
  queryFilters,
  queryInteger,
  queryTime,
} from "./query.js";
import { JsonStream, OutputStream, streamProgress } from "./response-stream.js";
import { createApi, createApiServer } from "./server.js";
import { readAll, serve } from "./test-server.js";

const THROWN: Record<string, Error> = {
  "400": new InvalidParameter("bad"),
  "401": new Unauthorized("who"),
  "403": new Forbidden("no"),
  "404": new NotFound("none"),
  "409": new Conflict("busy"),
  "500": new SystemError("broke"),
  "503": new Unavailable("away"),
};

const Body = z.object({
  Image: z.string(),
  HostConfig: z.object({ Memory: z.int() }).partial().optional(),
});

function routes(router: ApiRouter): void {
  router.get("/version-seen", (ctx) => {
    ctx.body = { version: ctx.state.version.text };
  });
  router.get("/throw/:status", (ctx) => {
    throw THROWN[ctx.params["status"] ?? ""] ?? new TypeError("unforeseen");
  });
  router.post("/unchanged", () => {
    throw new NotModified("already so");
  });
  router.post("/json", async (ctx) => {
    ctx.body = await readJson(ctx, Body);
  });
  router.get("/query", (ctx) => {
    ctx.body = {
      all: queryBoolean(ctx, "all"),
      limit: queryInteger(ctx, "limit") ?? null,
      since: queryTime(ctx, "since") ?? null,
      label: queryFilters(ctx, ["label"]).get("label"),
    };
  });
  router.get("/progress/:lines", async (ctx) => {
    await streamProgress(ctx, async (stream) => {
      for (let i = 0; i < Number(ctx.params["lines"]); i++) {
        await stream.send({ status: String(i) });
      }
      throw new NotFound("gone");
    });
  });
  router.get("/output", async (ctx) => {
    const stream = new OutputStream(ctx, true);
    await stream.stdout(Buffer.from("out"));
    await stream.stderr(Buffer.from("err"));
    stream.end();
  });
  router.get("/slow", async (ctx) => {
    await sleep(50);
    ctx.body = { slow: true };
  });
}

test("every answer carries the engine's headers", async (t) => {
  const server = await serve(t, routes);
  for (const url of ["/version-seen", "/throw/404", "/nowhere"]) {
    const { headers } = await server.request("GET", url);
    assert.equal(headers["api-version"], "1.51");
    assert.equal(headers["ostype"], "linux");
    assert.equal(headers["docker-experimental"], "true");
    assert.equal(headers["server"], "hull/0.0.0 (linux)");
    assert.equal(headers["content-type"], "application/json");
  }
});

const VERSIONS: [string, number, unknown][] = [
  ["/version-seen", 200, { version: "1.51" }],
  ["/v1.24/version-seen", 200, { version: "1.24" }],
  ["/v1.51/version-seen", 200, { version: "1.51" }],
  [
    "/v1.52/version-seen",
    400,
    {
      message:
        "client version 1.52 is too new. Maximum supported API version is 1.51",
    },
  ],
  [
    "/v1.10/version-seen",
    400,
    {
      message:
        "client version 1.10 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
    },
  ],
  ["/v2/version-seen", 400, undefined],
  ["/vlatest/version-seen", 404, { message: "page not found" }],
  ["/v1.51/nowhere", 404, { message: "page not found" }],
  ["/v1.51", 404, { message: "page not found" }],
];
for (const [url, status, body] of VERSIONS) {
  test(`GET ${url} answers ${status}`, async (t) => {
    const answer = await (await serve(t, routes)).request("GET", url);
    assert.equal(answer.status, status);
    if (body !== undefined) assert.deepEqual(answer.json(), body);
  });
}

test("a known path with another method is not found", async (t) => {
  const answer = await (
    await serve(t, routes)
  ).request("DELETE", "/version-seen");
  assert.equal(answer.status, 404);
});

test("each class of error has its status", async (t) => {
  const server = await serve(t, routes);
  for (const [status, error] of Object.entries(THROWN)) {
    const answer = await server.request("GET", `/throw/${status}`);
    assert.equal(answer.status, Number(status));
    assert.equal(answer.text, `{"message":"${error.message}"}\n`);
  }
});

test("an unforeseen error is 500 with its message, and the server lives", async (t) => {
  const server = await serve(t, routes);
  const answer = await server.request("GET", "/throw/other");
  assert.equal(answer.status, 500);
  assert.deepEqual(answer.json(), { message: "unforeseen" });
  assert.equal((await server.request("GET", "/version-seen")).status, 200);
});

test("what is already so is 304 without a body", async (t) => {
  const answer = await (await serve(t, routes)).request("POST", "/unchanged");
  assert.equal(answer.status, 304);
  assert.equal(answer.text, "");
});

test("sessions with BuildKit are refused; swarm says there is none", async (t) => {
  const server = await serve(t, routes);
  const plain = await server.request("POST", "/v1.51/session");
  assert.equal(plain.status, 400);
  assert.match(plain.text, /no upgrade proto in request/);
  const upgrade = { Connection: "Upgrade", Upgrade: "h2c" };
  const session = await server.request("POST", "/grpc", undefined, upgrade);
  assert.equal(session.status, 400);
  assert.match(session.text, /hull has no BuildKit/);
  const swarm = await server.request("GET", "/v1.51/swarm");
  assert.equal(swarm.status, 503);
  assert.match(swarm.text, /This node is not a swarm manager/);
});

test("a JSON body is read, unknown fields are dropped", async (t) => {
  const answer = await (
    await serve(t, routes)
  ).request(
    "POST",
    "/json",
    '{"Image":"a","HostConfig":{"Memory":5,"Strange":1},"Odd":[]}',
  );
  assert.deepEqual(answer.json(), { Image: "a", HostConfig: { Memory: 5 } });
});

const BODIES: [string, string | undefined, string | undefined, RegExp][] = [
  ["no JSON", "{Image", undefined, /^invalid JSON: /],
  ["cut-off JSON", '{"Image":', undefined, /^invalid JSON: /],
  [
    "a wrong type",
    '{"Image":"a","HostConfig":{"Memory":"x"}}',
    undefined,
    /^invalid value for HostConfig\.Memory: expected number, received string$/,
  ],
  ["a list", "[]", undefined, /^invalid request body: /],
  ["null", "null", undefined, /^invalid value for Image: /],
  ["nothing", undefined, undefined, /^invalid value for Image: /],
  [
    "text",
    "Image=a",
    "text/plain",
    /^unsupported Content-Type header \(text\/plain\): must be 'application\/json'$/,
  ],
  ["no type", "{}", "", /^malformed Content-Type header \(\)$/],
];
for (const [what, body, type, message] of BODIES) {
  test(`a body of ${what} is 400`, async (t) => {
    const answer = await (
      await serve(t, routes)
    ).request(
      "POST",
      "/json",
      body,
      type === undefined ? {} : { "Content-Type": type },
    );
    assert.equal(answer.status, 400);
    assert.match((answer.json() as { message: string }).message, message);
  });
}

test("a body over the limit is 413", async (t) => {
  const server = await serve(t, routes);
  const body = JSON.stringify({ Image: "a".repeat(MAX_JSON) });
  assert.equal((await server.request("POST", "/json", body)).status, 413);
});

test("query parameters are read by the engine's rules", async (t) => {
  const server = await serve(t, routes);
  const query = async (text: string) =>
    (await server.request("GET", `/query?${text}`)).json();
  const nothing = { all: false, limit: null, since: null, label: [] };
  assert.deepEqual(await query(""), nothing);
  assert.deepEqual(await query("all=&limit=&since=&filters="), nothing);
  assert.deepEqual(await query("all=False&limit=-1"), {
    ...nothing,
    limit: -1,
  });
  assert.deepEqual(await query("all=1&all=0&since=1.5"), {
    ...nothing,
    all: true,
    since: 1.5e9,
  });
  const rfc = await query("since=1970-01-01T00:00:02Z");
  assert.deepEqual(rfc, { ...nothing, since: 2e9 });
  for (const filters of [
    '{"label":["a","b=c"]}',
    '{"label":{"a":true,"b=c":true}}',
  ]) {
    assert.deepEqual(await query(`filters=${encodeURIComponent(filters)}`), {
      ...nothing,
      label: ["a", "b=c"],
    });
  }
});

for (const [text, message] of [
  ["limit=ten", 'invalid value for limit: "ten" is not a whole number'],
  [
    "since=yesterday",
    'invalid value for since: failed to parse value as time or duration: "yesterday"',
  ],
  ["filters=label", "invalid filter"],
  ["filters=[]", "invalid filter"],
  ['filters={"label":"a"}', "invalid filter"],
  ['filters={"colour":["a"]}', "invalid filter 'colour'"],
] as const) {
  test(`the query ${text} is 400`, async (t) => {
    const answer = await (
      await serve(t, routes)
    ).request("GET", `/query?${encodeURI(text)}`);
    assert.equal(answer.status, 400);
    assert.deepEqual(answer.json(), { message });
  });
}

test("an error before a stream began has its status, a later one is its last line", async (t) => {
  const server = await serve(t, routes);
  assert.equal((await server.request("GET", "/progress/0")).status, 404);
  const answer = await server.request("GET", "/progress/1");
  assert.equal(answer.status, 200);
  assert.deepEqual(
    answer.text
      .trim()
      .split("\r\n")
      .map((line) => JSON.parse(line) as unknown),
    [{ status: "0" }, { errorDetail: { message: "gone" }, error: "gone" }],
  );
});

test("streamed output is framed per stream", async (t) => {
  const answer = await (await serve(t, routes)).request("GET", "/output");
  assert.equal(
    answer.headers["content-type"],
    "application/vnd.docker.multiplexed-stream",
  );
  assert.equal(answer.text, "\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03err");
});

test("a stream hears that its client has gone", async (t) => {
  const told = new EventEmitter();
  const server = await serve(t, (router) => {
    router.get("/endless", async (ctx) => {
      const stream = new JsonStream(ctx);
      stream.open();
      await once(stream.signal, "abort");
      told.emit("sent", await stream.send({}));
    });
  });
  const socket = server.connect();
  socket.write("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
  await once(socket, "readable");
  const sent = once(told, "sent");
  socket.destroy();
  assert.deepEqual(await sent, [false]);
});

test("a client that half-closes after its request still gets the answer", async (t) => {
  const socket = (await serve(t, routes)).connect();
  socket.end("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
  assert.match((await readAll(socket)).toString(), /\{"slow":true\}\n$/);
});

const MALFORMED: [string, string, RegExp][] = [
  ["a garbage request line", "hello\r\n\r\n", /^HTTP\/1\.1 400 Bad Request/],
  ["no Host", "GET /slow HTTP/1.1\r\n\r\n", /^HTTP\/1\.1 400 Bad Request/],
  [
    "two lengths",
    "POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    /^HTTP\/1\.1 400 Bad Request/,
  ],
  [
    "a huge header",
    `GET /slow HTTP/1.1\r\nHost: x\r\nX: ${"x".repeat(70_000)}\r\n\r\n`,
    /^HTTP\/1\.1 431 /,
  ],
  [
    "a broken escape",
    "GET /throw/%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    /^HTTP\/1\.1 400 [^]*invalid URL escape/,
  ],
  [
    "an upgrade to something else",
    "GET /version-seen HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
    /^HTTP\/1\.1 200 OK[^]*\{"version":"1\.51"\}\n$/,
  ],
  [
    "a body cut short",
    'POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 50\r\n\r\n{"I',
    /^HTTP\/1\.1 400 Bad Request[^]*the request body is cut short/,
  ],
  [
    "a chunked body with an upgrade",
    "POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    /^HTTP\/1\.1 411 /,
  ],
];
for (const [what, text, expected] of MALFORMED) {
  test(`a request with ${what} is answered, and the server lives`, async (t) => {
    const server = await serve(t, routes);
    const socket = server.connect();
    socket.on("error", () => undefined);
    socket.end(text);
    assert.match((await readAll(socket)).toString(), expected);
    assert.equal((await server.request("GET", "/version-seen")).status, 200);
  });
}

test(
  "a client that never ends its request's head is cut off, a slow stream is not",
  { timeout: 20_000 },
  async (t) => {
    const api = createApi({
      log: pino({ level: "silent" }),
      serverVersion: "0.0.0",
      groups: [
        (router) => {
          router.get("/trickle", async (ctx) => {
            const stream = new JsonStream(ctx);
            for (let i = 0; i < 4; i++) {
              await stream.send({ i });
              await sleep(200);
            }
            stream.end();
          });
        },
      ],
    });
    const served = createApiServer(api, { headersTimeoutMs: 200 });
    const { server } = served;
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    t.after(() => served.close(0));
    const { port } = server.address() as AddressInfo;
    const slow = connect(port, "127.0.0.1");
    slow.write("GET /trickle HTTP/1.1\r\nHost: x\r\n");
    const stream = connect(port, "127.0.0.1");
    stream.write(
      "GET /trickle HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    const [cutOff, answer] = await Promise.all([
      readAll(slow),
      readAll(stream),
    ]);
    assert.match(cutOff.toString(), /^HTTP\/1\.1 408 Request Timeout/);
    assert.match(answer.toString(), /\{"i":3\}/);
  },
);

test("connections beyond the limit are closed at once, the others are served", async (t) => {
  const api = createApi({
    log: pino({ level: "silent" }),
    serverVersion: "0.0.0",
    groups: [(router) => router.get("/here", (ctx) => (ctx.body = {}))],
  });
  let refused = 0;
  const served = createApiServer(api, {
    maxConnections: 3,
    onRefused: () => refused++,
  });
  const { server } = served;
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => served.close(0));
  const { port } = server.address() as AddressInfo;
  const idle = [connect(port, "127.0.0.1"), connect(port, "127.0.0.1")];
  await Promise.all(idle.map((socket) => once(socket, "connect")));
  const last = connect(port, "127.0.0.1");
  await once(last, "connect");
  const beyond = connect(port, "127.0.0.1");
  assert.equal((await readAll(beyond)).length, 0);
  assert.equal(refused, 1);
  last.write("GET /here HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  assert.match((await readAll(last)).toString(), /^HTTP\/1\.1 200 OK/);
  // There is room again.
  const next = connect(port, "127.0.0.1");
  next.write("GET /here HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  assert.match((await readAll(next)).toString(), /^HTTP\/1\.1 200 OK/);
  for (const socket of idle) socket.destroy();
});
