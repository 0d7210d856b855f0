import assert from "node:assert/strict";
import type { IncomingMessage, ServerResponse } from "node:http";
import { describe, it, type TestContext } from "node:test";
import { temporaryFolder } from "../layers/test-erofs.js";
import { parseReference } from "../reference.js";
import { RegistryClient } from "./client.js";
import type { Repository } from "./repository.js";
import { ANONYMOUS, type Credentials } from "./credentials.js";
import { RegistryError } from "./errors.js";
import { makeCertificate } from "./test-certificate.js";
import { refuse, TestRegistry } from "./test-registry.js";
import { Transport } from "./transport.js";

const signal = new AbortController().signal;
const USER: Credentials = { ...ANONYMOUS, username: "jo", password: "s:cret" };
const BASIC = `Basic ${Buffer.from("jo:s:cret").toString("base64")}`;

function client(t: TestContext): RegistryClient {
  const made = new RegistryClient({
    mirrors: [],
    insecure: [],
    certificateFolders: [],
  });
  t.after(() => made.close());
  return made;
}

function manifest(
  t: TestContext,
  registry: TestRegistry,
  credentials: Credentials,
  run: (repository: Repository) => Promise<unknown> = (repository) =>
    repository.manifest("1", signal),
): Promise<unknown> {
  return client(t).withRepository(
    parseReference(`${registry.host}/team/app:1`),
    credentials,
    signal,
    run,
  );
}

/** Makes a registry ask for tokens that it gives out itself at /token. */
function withTokens(
  registry: TestRegistry,
  give: (req: IncomingMessage, res: ServerResponse, body: string) => void,
): { accepted: Set<string> } {
  const accepted = new Set<string>();
  registry.intercept = async (req, res) => {
    if ((req.url ?? "").startsWith("/token")) {
      let body = "";
      for await (const chunk of req) body += String(chunk);
      give(req, res, body);
      return true;
    }
    const token = (req.headers.authorization ?? "").replace(/^Bearer /, "");
    if (accepted.has(token)) return false;
    refuse(res, 401, "UNAUTHORIZED", "authentication required", {
      "WWW-Authenticate": `Bearer realm="http://${registry.host}/token",service="the \\"registry\\""${
        token === "" ? "" : ',error="invalid_token"'
      }`,
    });
    return true;
  };
  return { accepted };
}

describe("RegistryClient", () => {
  it("gets a token for the repository, anonymously, and uses it again", async (t) => {
    const registry = await TestRegistry.start(t);
    registry.add("1");
    const urls: string[] = [];
    const { accepted } = withTokens(registry, (req, res) => {
      urls.push(req.url ?? "");
      assert.equal(req.headers.authorization, undefined);
      accepted.add("t1");
      res.end(JSON.stringify({ token: "t1" }));
    });
    await manifest(t, registry, ANONYMOUS, async (repository) => {
      await repository.head("1", signal);
      await repository.manifest("1", signal);
      await repository.tags(signal);
    });
    assert.equal(urls.length, 1);
    const { searchParams } = new URL(`http://x${urls[0]}`);
    assert.equal(searchParams.get("service"), 'the "registry"');
    assert.equal(searchParams.get("scope"), "repository:team/app:pull");
    assert.equal(searchParams.has("account"), false);
  });

  it("tells the token server who the user is", async (t) => {
    const registry = await TestRegistry.start(t);
    registry.add("1");
    const { accepted } = withTokens(registry, (req, res) => {
      assert.equal(req.headers.authorization, BASIC);
      assert.match(req.url ?? "", /account=jo/);
      accepted.add("t1");
      res.end(JSON.stringify({ access_token: "t1", expires_in: 300 }));
    });
    await manifest(t, registry, USER);
  });

  it("exchanges an identity token by POST", async (t) => {
    const registry = await TestRegistry.start(t);
    registry.add("1");
    const { accepted } = withTokens(registry, (req, res, body) => {
      assert.equal(req.method, "POST");
      const form = new URLSearchParams(body);
      assert.equal(form.get("grant_type"), "refresh_token");
      assert.equal(form.get("refresh_token"), "identity");
      assert.equal(form.get("scope"), "repository:team/app:pull");
      accepted.add("t1");
      res.end(JSON.stringify({ access_token: "t1" }));
    });
    await manifest(t, registry, { ...ANONYMOUS, identityToken: "identity" });
  });

  it("sends a registry token as it is", async (t) => {
    const registry = await TestRegistry.start(t);
    registry.add("1");
    const { accepted } = withTokens(registry, () => assert.fail("asked"));
    accepted.add("mine");
    await manifest(t, registry, { ...ANONYMOUS, registryToken: "mine" });
  });

  it("gets another token when one is no longer accepted", async (t) => {
    const registry = await TestRegistry.start(t);
    registry.add("1");
    let given = 0;
    const { accepted } = withTokens(registry, (_req, res) => {
      accepted.add(`t${++given}`);
      res.end(JSON.stringify({ token: `t${given}` }));
    });
    await manifest(t, registry, ANONYMOUS, async (repository) => {
      await repository.manifest("1", signal);
      accepted.clear();
      await repository.manifest("1", signal);
    });
    assert.equal(given, 2);
  });

  it("does not ask for ever", async (t) => {
    const registry = await TestRegistry.start(t);
    withTokens(registry, (_req, res) => {
      res.end(JSON.stringify({ token: "never-good" }));
    });
    await assert.rejects(
      manifest(t, registry, ANONYMOUS),
      new RegistryError(
        "UNAUTHORIZED",
        "unauthorized: authentication required",
        401,
      ),
    );
    assert.ok(registry.requests.length < 8);
  });

  it("says what the token server says", async (t) => {
    const registry = await TestRegistry.start(t);
    withTokens(registry, (_req, res) => {
      res.statusCode = 401;
      res.end(JSON.stringify({ details: "incorrect username or password" }));
    });
    await assert.rejects(
      manifest(t, registry, USER),
      /^Error: Get ".*": unauthorized: incorrect username or password$/,
    );
  });

  for (const answer of [
    "",
    "[]",
    '{"token":""}',
    '{"token":"a\\nb"}',
    '{"token":1}',
  ]) {
    it(`refuses a token answer of ${JSON.stringify(answer)}`, async (t) => {
      const registry = await TestRegistry.start(t);
      withTokens(registry, (_req, res) => res.end(answer));
      await assert.rejects(
        manifest(t, registry, ANONYMOUS),
        /did not include a token/,
      );
    });
  }

  it("refuses a token server that is none", async (t) => {
    const registry = await TestRegistry.start(t);
    registry.intercept = (_req, res) => {
      refuse(res, 401, "UNAUTHORIZED", "x", {
        "WWW-Authenticate": 'Bearer realm="file:///etc/passwd"',
      });
      return true;
    };
    await assert.rejects(
      manifest(t, registry, USER),
      /names no usable token server/,
    );
  });

  it("understands an insufficient scope as denied", async (t) => {
    const registry = await TestRegistry.start(t);
    const { accepted } = withTokens(registry, (_req, res) => {
      res.end(JSON.stringify({ token: "small" }));
    });
    assert.equal(accepted.size, 0);
    const tokens = registry.intercept;
    registry.intercept = (req, res) => {
      if (req.headers.authorization !== "Bearer small") return tokens(req, res);
      refuse(res, 401, "UNAUTHORIZED", "x", {
        "WWW-Authenticate": `Bearer realm="http://${registry.host}/token",service="s",error="insufficient_scope"`,
      });
      return true;
    };
    await assert.rejects(
      manifest(t, registry, ANONYMOUS),
      new RegistryError(
        "DENIED",
        "denied: requested access to the resource is denied",
        401,
      ),
    );
  });

  describe("with basic authentication", () => {
    const ask = (registry: TestRegistry): void => {
      registry.intercept = (req, res) => {
        if (req.headers.authorization === BASIC) return false;
        refuse(res, 401, "UNAUTHORIZED", "authentication required", {
          "WWW-Authenticate": 'Basic realm="Registry"',
        });
        return true;
      };
    };
    it("sends user name and password", async (t) => {
      const registry = await TestRegistry.start(t);
      registry.add("1");
      ask(registry);
      await manifest(t, registry, USER);
    });
    it("says that there are none", async (t) => {
      const registry = await TestRegistry.start(t);
      ask(registry);
      await assert.rejects(
        manifest(t, registry, ANONYMOUS),
        /^Error: Get "http:.*\/v2\/team\/app\/manifests\/1": no basic auth credentials$/,
      );
    });
    it("says that they are wrong, asking once", async (t) => {
      const registry = await TestRegistry.start(t);
      ask(registry);
      await assert.rejects(
        manifest(t, registry, { ...USER, password: "wrong" }),
        new RegistryError(
          "UNAUTHORIZED",
          "unauthorized: authentication required",
          401,
        ),
      );
      assert.equal(registry.count("manifests"), 1);
    });
    it("checks a login", async (t) => {
      const registry = await TestRegistry.start(t);
      ask(registry);
      await client(t).login(registry.host, USER, signal);
      await assert.rejects(
        client(t).login(registry.host, { ...USER, password: "wrong" }, signal),
        new RegistryError(
          "UNAUTHORIZED",
          `login attempt to http://${registry.host}/v2/ failed with status: 401 Unauthorized`,
          401,
        ),
      );
    });
  });

  it("lists tags over pages, within the repository", async (t) => {
    const registry = await TestRegistry.start(t);
    registry.intercept = (req, res) => {
      const { searchParams } = new URL(`http://x${req.url}`);
      if (!(req.url ?? "").includes("tags/list")) return false;
      const page = Number(searchParams.get("last") ?? 0);
      if (page < 2) {
        res.setHeader(
          "Link",
          `<http://elsewhere.invalid/other?last=${page + 1}>; rel="next"`,
        );
      }
      res.end(JSON.stringify({ tags: [`t${page}`] }));
      return true;
    };
    const tags = await manifest(t, registry, ANONYMOUS, (repository) =>
      repository.tags(signal),
    );
    assert.deepEqual(tags, ["t0", "t1", "t2"]);
  });

  it("refuses a registry host that is none", async (t) => {
    await assert.rejects(
      client(t).withRepository(
        parseReference("example.com:99999/x"),
        ANONYMOUS,
        signal,
        () => assert.fail("reached"),
      ),
      /invalid registry host/,
    );
  });
});

describe("Transport", () => {
  it("verifies certificates, trusting what the settings say", async (t) => {
    const { cert, key } = makeCertificate(await temporaryFolder(t));
    const registry = await TestRegistry.start(t, { cert, key });
    const transport = new Transport();
    t.after(() => transport.close());
    const ping = (verify: boolean, ca: string[]): Promise<unknown> =>
      transport.send({
        method: "GET",
        url: new URL(`https://${registry.host}/v2/`),
        tls: { verify, ca, certificates: [] },
        signal,
      });
    await assert.rejects(
      ping(true, []),
      /^Error: Get "https:.*\/v2\/": tls: failed to verify certificate: x509: certificate signed by unknown authority$/,
    );
    await ping(true, [cert]);
    await ping(false, []);
  });

  it("verifies that a certificate is the host's", async (t) => {
    const { cert, key } = makeCertificate(
      await temporaryFolder(t),
      "DNS:other",
    );
    const registry = await TestRegistry.start(t, { cert, key });
    const transport = new Transport();
    t.after(() => transport.close());
    await assert.rejects(
      transport.send({
        method: "GET",
        url: new URL(`https://${registry.host}/v2/`),
        tls: { verify: true, ca: [cert], certificates: [] },
        signal,
      }),
      /tls: failed to verify certificate: x509: /,
    );
  });

  it("says that a registry does not speak HTTPS", async (t) => {
    const registry = await TestRegistry.start(t);
    const transport = new Transport();
    t.after(() => transport.close());
    await assert.rejects(
      transport.send({
        method: "GET",
        url: new URL(`https://${registry.host}/v2/`),
        tls: { verify: true, ca: [], certificates: [] },
        signal,
      }),
      /: http: server gave HTTP response to HTTPS client$/,
    );
  });
});
