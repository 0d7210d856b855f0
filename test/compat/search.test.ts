/** `docker search`, at an index of the test's own: the v1 API as Docker Hub speaks it. */
import assert from "node:assert/strict";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, beforeEach, describe, test } from "node:test";
import { api, messageOf } from "./harness/api.js";
import { docker, dockerOk } from "./harness/docker.js";

interface Asked {
  url: string;
  authorization: string | undefined;
}

/** As Docker Hub answers; it calls some of them automated, which no engine believes any more. */
const ENTRIES = [
  { name: "busybox", star_count: 3000, is_official: true },
  { name: "someone/busybox", star_count: 40, is_automated: true },
  { name: "other/busybox", star_count: 0 },
].map((entry) => ({
  description: `about ${entry.name}`,
  is_official: false,
  is_automated: false,
  ...entry,
}));

describe("docker search", () => {
  let server: http.Server;
  let host = "";
  let asked: Asked[] = [];
  let answer: (response: http.ServerResponse) => void;

  before(async () => {
    server = http.createServer((request, response) => {
      const { url = "", headers } = request;
      if (url === "/v1/_ping") {
        response.end("true");
        return;
      }
      asked.push({ url, authorization: headers.authorization });
      answer(response);
    });
    await new Promise<void>((resolve) =>
      server.listen(0, "127.0.0.1", resolve),
    );
    host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  beforeEach(() => {
    asked = [];
    answer = (response) =>
      response.end(
        JSON.stringify({ num_results: ENTRIES.length, results: ENTRIES }),
      );
  });
  after(() => {
    server.closeAllConnections();
    server.close();
  });

  const names = async (...args: string[]) => {
    const text = await dockerOk(["search", "--format", "{{.Name}}", ...args]);
    return text.split("\n").filter((line) => line !== "");
  };

  test("lists what the index has", async () => {
    const table = await dockerOk(["search", `${host}/busybox`]);
    const [head, first] = table.split("\n");
    assert.match(head ?? "", /^NAME +DESCRIPTION +STARS +OFFICIAL/);
    assert.match(first ?? "", /^busybox +about busybox +3000 +\[OK\]/);
    assert.equal(table.split("\n").length, 4);
    assert.deepEqual(asked, [
      { url: "/v1/search?q=busybox&n=25", authorization: undefined },
    ]);
  });

  test("asks for as many as were wanted, and for all of the term", async () => {
    await names("--limit", "2", `${host}/a b/ü`);
    assert.equal(asked[0]?.url, "/v1/search?q=a+b%2F%C3%BC&n=2");
    assert.equal((await names("--limit", "2", `${host}/x`)).length, 2);
  });

  test("filters as the engine does", async () => {
    const filtered = (filter: string) =>
      names("--filter", filter, `${host}/busybox`);
    assert.deepEqual(await filtered("is-official=true"), ["busybox"]);
    assert.deepEqual(await filtered("is-official=false"), [
      "someone/busybox",
      "other/busybox",
    ]);
    assert.deepEqual(await filtered("stars=40"), [
      "busybox",
      "someone/busybox",
    ]);
    asked = [];
    assert.deepEqual(await filtered("is-automated=true"), []);
    assert.deepEqual(asked, [], "nothing is automated: nobody was asked");
    assert.equal((await filtered("is-automated=false")).length, 3);
  });

  test("says who the user is, by name and password", async () => {
    const auth = { username: "jo", password: "s:cret" };
    const header = Buffer.from(JSON.stringify(auth)).toString("base64url");
    const found = await api(
      "GET",
      `/images/search?term=${encodeURIComponent(`${host}/x`)}`,
      undefined,
      { "X-Registry-Auth": header },
    );
    assert.equal(found.status, 200, found.text);
    const basic = Buffer.from("jo:s:cret").toString("base64");
    assert.equal(asked[0]?.authorization, `Basic ${basic}`);
    assert.deepEqual((found.json as object[])[1], {
      name: "someone/busybox",
      description: "about someone/busybox",
      star_count: 40,
      is_official: false,
      is_automated: false,
    });
  });

  test("passes on what an index says that will not, or cannot, answer", async () => {
    const search = async () => {
      const { code, stderr } = await docker(["search", `${host}/x`]);
      assert.equal(code, 1);
      return stderr.trim();
    };
    answer = (response) => response.writeHead(404).end("no");
    assert.equal(
      await search(),
      "Error response from daemon: Unexpected status code 404",
    );
    for (const text of ["no JSON", '{"results":[{"name":7}]}']) {
      answer = (response) => response.end(text);
      assert.match(await search(), /error decoding registry search results: /);
    }
    answer = (response) => response.end("[".repeat(5 * 1024 * 1024));
    assert.match(await search(), /longer than \d+ bytes/);
    answer = (response) => response.destroy();
    assert.match(await search(), /Get "http:\/\/127\.0\.0\.1:\d+\/v1\/search/);
  });

  const refused: [query: string, message: RegExp][] = [
    ["term=x&limit=101", /^limit 101 is outside the range of \[1, 100\]$/],
    ["term=x&limit=-1", /^invalid limit specified/],
    ["term=x&limit=ten", /^invalid limit specified: strconv\.Atoi: /],
    ["term=x&filters={", /./],
    ['term=x&filters={"no-such":["1"]}', /^invalid filter 'no-such'$/],
    [
      'term=x&filters={"stars":["many"]}',
      /^invalid filter 'stars=many': strconv\.Atoi: parsing "many": invalid syntax$/,
    ],
    [
      'term=x&filters={"is-official":["maybe"]}',
      /^invalid filter 'is-official=\[maybe\]'$/,
    ],
    [
      "term=http://a.b/c",
      /^invalid repository name: repository name \(http:\/\/a\.b\/c\) should not have a scheme$/,
    ],
    ["term=-a.b/c", /^invalid index name \(-a\.b\)\. Cannot begin or end/],
    [
      "term=127.0.0.1:1/x",
      /^invalid registry endpoint "http:\/\/127\.0\.0\.1:1\/v1\/"\. HTTPS attempt: Get "https:.*connection refused\. HTTP attempt: Get "http:.*connection refused$/,
    ],
    [
      "term=no-such-host.invalid/x",
      /^invalid registry endpoint https:\/\/no-such-host\.invalid\/v1\/: Get "https:.*`--insecure-registry no-such-host\.invalid`/,
    ],
  ];
  for (const [query, message] of refused) {
    test(`refuses ${query}`, async () => {
      const found = await api("GET", `/images/search?${encodeURI(query)}`);
      assert.equal(found.status, 400, found.text);
      assert.match(messageOf(found), message);
    });
  }

  test("says so when Docker Hub cannot be reached", async () => {
    const found = await api(
      "GET",
      "/images/search?term=library/busybox&limit=3",
    );
    if (found.status === 200) {
      assert.ok((found.json as unknown[]).length <= 3);
      return;
    }
    assert.equal(found.status, 500);
    assert.match(
      messageOf(found),
      /^Get "https:\/\/index\.docker\.io\/v1\/search\?q=busybox&n=3": |^Unexpected status code \d+$/,
    );
  });
});
