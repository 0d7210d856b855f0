/** Debian's docker-registry on loopback addresses, and pushing to it. */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import {
  createHash,
  X509Certificate,
  createPrivateKey,
  sign,
} from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { Agent, fetch } from "undici";
import type { Blob, BuiltImage, BuiltIndex } from "./image-builder.js";

/** Where a registry listens and what it asks of clients. */
export interface RegistryAddress {
  /** "127.0.0.1:PORT", as it begins an image reference. */
  host: string;
  scheme: "http" | "https";
  /** PEM file of the authority that signed its certificate. */
  ca?: string | undefined;
  user?: string | undefined;
  password?: string | undefined;
}

export interface RunningRegistry extends RegistryAddress {
  stop(): Promise<void>;
}

export interface RegistryOptions {
  /** Empty folder of its own. */
  directory: string;
  /** Address to listen on; 127.0.0.1 without TLS. */
  address?: string;
  /** Serve TLS with a certificate of an authority made for it. */
  tls?: boolean;
  auth?: "basic" | "token";
}

/** User and password of registries that ask for one. */
export const CREDENTIALS = { user: "alice", password: "s3cret:with colon" };

/** Starts a registry and waits until it listens. */
export async function startRegistry(
  options: RegistryOptions,
): Promise<RunningRegistry> {
  const { directory } = options;
  const address = options.address ?? "127.0.0.1";
  mkdirSync(path.join(directory, "data"), { recursive: true });
  const lines = [
    "version: 0.1",
    "log: { level: info, accesslog: { disabled: true } }",
    `storage: { filesystem: { rootdirectory: ${directory}/data }, delete: { enabled: true } }`,
    "http:",
    `  addr: ${address}:0`,
    "  secret: of-the-tests",
  ];
  let ca: string | undefined;
  if (options.tls) {
    const made = makeCertificates(directory, address);
    ca = made.ca;
    lines.push(
      "  tls:",
      `    certificate: ${made.certificate}`,
      `    key: ${made.key}`,
    );
  }
  let tokens: TokenServer | undefined;
  if (options.auth === "basic") {
    const passwords = path.join(directory, "htpasswd");
    execFileSync(
      "htpasswd",
      ["-Bbc", passwords, CREDENTIALS.user, CREDENTIALS.password],
      {
        stdio: "ignore",
      },
    );
    lines.push(`auth: { htpasswd: { realm: hull tests, path: ${passwords} } }`);
  } else if (options.auth === "token") {
    tokens = await startTokenServer(directory);
    lines.push(
      "auth:",
      "  token:",
      `    realm: ${tokens.realm}`,
      "    service: hull-tests",
      "    issuer: hull-tests",
      `    rootcertbundle: ${tokens.certificate}`,
    );
  }
  const config = path.join(directory, "config.yml");
  writeFileSync(config, lines.join("\n") + "\n");

  const child = spawn("docker-registry", ["serve", config], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const port = await listeningPort(child);
  return {
    host: `${address}:${port}`,
    scheme: options.tls ? "https" : "http",
    ...(ca && { ca }),
    ...(options.auth && CREDENTIALS),
    async stop() {
      tokens?.close();
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGKILL");
      await ended;
    },
  };
}

/** The port a registry says it listens on. */
function listeningPort(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    let log = "";
    const read = (chunk: Buffer) => {
      if (log.length < 100_000) log += chunk.toString();
      const match = /listening on [^"]*?:(\d+)/.exec(log);
      if (match) resolve(Number(match[1]));
    };
    child.stdout?.on("data", read);
    child.stderr?.on("data", read);
    child.once("error", reject);
    child.once("exit", (code) =>
      reject(new Error(`docker-registry ended with ${code}: ${log}`)),
    );
  });
}

function makeCertificates(directory: string, address: string) {
  const file = (name: string) => path.join(directory, name);
  const openssl = (...args: string[]) =>
    execFileSync("openssl", args, { stdio: "pipe" });
  const curve = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
  ];
  openssl(
    "req",
    "-x509",
    ...curve,
    "-days",
    "2",
    "-subj",
    "/CN=hull tests authority",
    "-keyout",
    file("ca.key"),
    "-out",
    file("ca.crt"),
  );
  openssl(
    "req",
    ...curve,
    "-subj",
    "/CN=registry",
    "-keyout",
    file("tls.key"),
    "-out",
    file("tls.csr"),
  );
  writeFileSync(file("tls.ext"), `subjectAltName=IP:${address}\n`);
  openssl(
    "x509",
    "-req",
    "-in",
    file("tls.csr"),
    "-CA",
    file("ca.crt"),
    "-CAkey",
    file("ca.key"),
    "-CAcreateserial",
    "-days",
    "2",
    "-extfile",
    file("tls.ext"),
    "-out",
    file("tls.crt"),
  );
  return {
    ca: file("ca.crt"),
    certificate: file("tls.crt"),
    key: file("tls.key"),
  };
}

interface TokenServer {
  realm: string;
  certificate: string;
  close(): void;
}

/** Gives tokens as Docker Hub's auth service does (distribution's token specification). */
async function startTokenServer(directory: string): Promise<TokenServer> {
  const certificate = path.join(directory, "token.crt");
  const keyFile = path.join(directory, "token.key");
  execFileSync(
    "openssl",
    [
      "req",
      "-x509",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-nodes",
      "-days",
      "2",
      "-subj",
      "/CN=hull tests tokens",
      "-keyout",
      keyFile,
      "-out",
      certificate,
    ],
    { stdio: "pipe" },
  );
  const key = createPrivateKey(readFileSync(keyFile));
  const x5c = new X509Certificate(readFileSync(certificate)).raw.toString(
    "base64",
  );
  const expected = `Basic ${Buffer.from(`${CREDENTIALS.user}:${CREDENTIALS.password}`).toString("base64")}`;

  const server = http.createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://token.invalid");
    if (
      request.headers.authorization &&
      request.headers.authorization !== expected
    ) {
      response.writeHead(401, { "content-type": "application/json" });
      response.end(
        JSON.stringify({ details: "incorrect username or password" }),
      );
      return;
    }
    // Without credentials a token for nothing, as the real ones give for private repositories.
    const access = request.headers.authorization
      ? url.searchParams.getAll("scope").map((scope) => {
          const [type, name, actions] = [
            scope.slice(0, scope.indexOf(":")),
            scope.slice(scope.indexOf(":") + 1, scope.lastIndexOf(":")),
            scope.slice(scope.lastIndexOf(":") + 1),
          ];
          return { type, name, actions: actions.split(",") };
        })
      : [];
    const now = Math.floor(Date.now() / 1000);
    const encode = (value: unknown) =>
      Buffer.from(JSON.stringify(value)).toString("base64url");
    const head = encode({ typ: "JWT", alg: "ES256", x5c: [x5c] });
    const body = encode({
      iss: "hull-tests",
      sub: CREDENTIALS.user,
      aud: "hull-tests",
      exp: now + 300,
      nbf: now - 5,
      iat: now,
      jti: String(Math.random()),
      access,
    });
    const signature = sign("sha256", Buffer.from(`${head}.${body}`), {
      key,
      dsaEncoding: "ieee-p1363",
    }).toString("base64url");
    response.writeHead(200, { "content-type": "application/json" });
    response.end(
      JSON.stringify({
        token: `${head}.${body}.${signature}`,
        expires_in: 300,
      }),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    realm: `http://127.0.0.1:${port}/token`,
    certificate,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** Pushes an image or an index as `repository:tag`. */
export async function push(
  registry: RegistryAddress,
  repository: string,
  tag: string,
  what: BuiltImage | BuiltIndex,
): Promise<void> {
  const client = new RegistryClient(registry, repository);
  try {
    const images = "images" in what ? what.images : [what];
    for (const each of images) {
      for (const blob of each.blobs) await client.putBlob(blob);
      if ("images" in what)
        await client.putManifest(each.manifest.digest, each.manifest);
    }
    await client.putManifest(tag, what.manifest);
  } finally {
    await client.close();
  }
}

/** The few requests of the distribution API a push needs. */
class RegistryClient {
  readonly #base: string;
  readonly #registry: RegistryAddress;
  readonly #dispatcher: Agent;
  readonly #repository: string;
  #authorization: string | undefined;

  constructor(registry: RegistryAddress, repository: string) {
    this.#registry = registry;
    this.#repository = repository;
    this.#base = `${registry.scheme}://${registry.host}`;
    this.#dispatcher = new Agent({
      connect: registry.ca ? { ca: readFileSync(registry.ca) } : {},
    });
    if (registry.user !== undefined) {
      this.#authorization = `Basic ${Buffer.from(`${registry.user}:${registry.password}`).toString("base64")}`;
    }
  }

  async close(): Promise<void> {
    await this.#dispatcher.close();
  }

  async putBlob(blob: Blob): Promise<void> {
    const there = await this.#request("HEAD", `blobs/${blob.digest}`, {});
    if (there.status === 200) return;
    const begun = await this.#request("POST", "blobs/uploads/", {});
    const location = begun.headers.get("location");
    if (begun.status !== 202 || location === null)
      throw new Error(`POST uploads: ${begun.status}`);
    const target = new URL(location, this.#base);
    target.searchParams.set("digest", blob.digest);
    const put = await this.#request("PUT", target.href, {
      body: blob.bytes,
      type: "application/octet-stream",
    });
    if (put.status !== 201)
      throw new Error(`PUT blob: ${put.status} ${await put.text()}`);
  }

  async putManifest(reference: string, manifest: Blob): Promise<void> {
    const put = await this.#request("PUT", `manifests/${reference}`, {
      body: manifest.bytes,
      type: manifest.mediaType,
    });
    if (put.status !== 201)
      throw new Error(`PUT manifest: ${put.status} ${await put.text()}`);
  }

  async #request(
    method: string,
    where: string,
    options: { body?: Buffer; type?: string },
  ) {
    const url = where.startsWith("http")
      ? where
      : `${this.#base}/v2/${this.#repository}/${where}`;
    const once = () =>
      fetch(url, {
        method,
        dispatcher: this.#dispatcher,
        headers: {
          ...(options.type && { "content-type": options.type }),
          ...(this.#authorization && { authorization: this.#authorization }),
        },
        ...(options.body && { body: options.body }),
      });
    const first = await once();
    const challenge = first.headers.get("www-authenticate");
    if (first.status !== 401 || !challenge?.startsWith("Bearer ")) return first;
    const part = (name: string) =>
      new RegExp(`${name}="([^"]*)"`).exec(challenge)?.[1] ?? "";
    const tokenUrl = new URL(part("realm"));
    tokenUrl.searchParams.set("service", part("service"));
    tokenUrl.searchParams.set("scope", part("scope"));
    const { user, password } = this.#registry;
    const answer = (await (
      await fetch(tokenUrl, {
        headers: {
          authorization: `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`,
        },
      })
    ).json()) as { token: string };
    this.#authorization = `Bearer ${answer.token}`;
    return once();
  }
}

/** A short name for content, for caches. */
export function contentKey(...parts: (string | Buffer)[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex").slice(0, 16);
}
