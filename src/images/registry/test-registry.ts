/** For tests: a registry in this process that also misbehaves on demand. */
import {
  createServer,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";
import { gzipSync } from "node:zlib";
import { type Digest, digestOf } from "../digest.js";
import { tar, type TestEntry } from "../layers/test-tar.js";

export const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
export const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
export const DOCKER_MANIFEST =
  "application/vnd.docker.distribution.manifest.v2+json";
export const DOCKER_LIST =
  "application/vnd.docker.distribution.manifest.list.v2+json";

export interface TestImage {
  /** Image ID: the config's digest. */
  id: Digest;
  /** Of the manifest. */
  digest: Digest;
  mediaType: string;
  size: number;
  layers: { digest: Digest; diffId: Digest; size: number }[];
}

export interface ImageSpec {
  layers?: TestEntry[][];
  compress?: (archive: Buffer) => Buffer;
  config?: object;
  /** Overwrites of the manifest's own fields. */
  manifest?: object;
  docker?: boolean;
}

type Handler = (
  req: IncomingMessage,
  res: ServerResponse,
) => boolean | Promise<boolean>;

export class TestRegistry {
  readonly blobs = new Map<string, Buffer>();
  /** By tag or digest; all repositories have the same. */
  readonly manifests = new Map<string, { mediaType: string; bytes: Buffer }>();
  /** "METHOD /path" of every request, with the Authorization header's scheme if it had one. */
  readonly requests: string[] = [];
  /** Sees requests first; answers them when it returns true. */
  intercept: Handler = () => false;
  host = "";

  static async start(
    t: TestContext,
    tls?: { cert: string; key: string },
  ): Promise<TestRegistry> {
    const registry = new TestRegistry();
    const listener = (req: IncomingMessage, res: ServerResponse): void => {
      req.on("error", () => {});
      res.on("error", () => {});
      registry.#answer(req, res).catch(() => res.destroy());
    };
    const server =
      tls === undefined
        ? createServer(listener)
        : createTlsServer(tls, listener);
    server.on("tlsClientError", () => {});
    await new Promise<void>((resolve) => {
      server.listen(0, "127.0.0.1", resolve);
    });
    const { port } = server.address() as AddressInfo;
    registry.host = `127.0.0.1:${port}`;
    t.after(() => {
      server.closeAllConnections();
      server.close();
    });
    return registry;
  }

  /** Requests whose path contains the text. */
  count(text: string): number {
    return this.requests.filter((line) => line.includes(text)).length;
  }

  /** Adds an image and lets a tag name it. */
  add(tag: string, spec: ImageSpec = {}): TestImage {
    const compress = spec.compress ?? ((archive: Buffer) => gzipSync(archive));
    const layers = (spec.layers ?? [[{ name: "hello", data: "world" }]]).map(
      (entries) => {
        const archive = tar(...entries);
        const blob = compress(archive);
        const digest = this.addBlob(blob);
        return { digest, diffId: digestOf(archive), size: blob.length };
      },
    );
    const config = Buffer.from(
      JSON.stringify({
        architecture: "amd64",
        os: "linux",
        config: { Cmd: ["sh"] },
        rootfs: {
          type: "layers",
          diff_ids: layers.map(({ diffId }) => diffId),
        },
        history: layers.map((_, index) => ({ created_by: `layer ${index}` })),
        ...spec.config,
      }),
    );
    const id = this.addBlob(config);
    const mediaType = spec.docker === true ? DOCKER_MANIFEST : OCI_MANIFEST;
    const manifest = this.addManifest(tag, mediaType, {
      schemaVersion: 2,
      mediaType,
      config: {
        mediaType:
          spec.docker === true
            ? "application/vnd.docker.container.image.v1+json"
            : "application/vnd.oci.image.config.v1+json",
        digest: id,
        size: config.length,
      },
      layers: layers.map(({ digest, size }) => ({
        mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
        digest,
        size,
      })),
      ...spec.manifest,
    });
    return { id, layers, mediaType, ...manifest };
  }

  addBlob(blob: Buffer): Digest {
    const digest = digestOf(blob);
    this.blobs.set(digest, blob);
    return digest;
  }

  addManifest(
    tag: string,
    mediaType: string,
    document: object,
  ): { digest: Digest; size: number } {
    const bytes = Buffer.from(JSON.stringify(document));
    const digest = digestOf(bytes);
    this.manifests.set(tag, { mediaType, bytes });
    this.manifests.set(digest, { mediaType, bytes });
    return { digest, size: bytes.length };
  }

  async #answer(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const { method = "", url = "" } = req;
    const [scheme] = (req.headers.authorization ?? "").split(" ");
    this.requests.push(`${method} ${url} ${scheme ?? ""}`.trim());
    if (await this.intercept(req, res)) return;
    if (url === "/v2/") return void res.end("{}");
    const [, kind, name = ""] =
      /\/(manifests|blobs)\/([^/?]+)$/.exec(url) ?? [];
    if (kind === "manifests") {
      const manifest = this.manifests.get(name);
      if (manifest === undefined) {
        return refuse(res, 404, "MANIFEST_UNKNOWN", "manifest unknown");
      }
      res.writeHead(200, {
        "Content-Type": manifest.mediaType,
        "Content-Length": manifest.bytes.length,
        "Docker-Content-Digest": digestOf(manifest.bytes),
      });
      return void res.end(method === "HEAD" ? "" : manifest.bytes);
    }
    if (kind === "blobs") {
      const blob = this.blobs.get(name);
      if (blob === undefined) {
        return refuse(res, 404, "BLOB_UNKNOWN", "blob unknown to registry");
      }
      return sendBlob(req, res, blob);
    }
    if (url.endsWith("/tags/list")) {
      const tags = [...this.manifests.keys()].filter((k) => !k.includes(":"));
      return void res.end(JSON.stringify({ tags }));
    }
    refuse(res, 404, "NAME_UNKNOWN", "repository name not known to registry");
  }
}

/** Answers as registries refuse. */
export function refuse(
  res: ServerResponse,
  status: number,
  code: string,
  message: string,
  headers: Record<string, string> = {},
): void {
  res.writeHead(status, { "Content-Type": "application/json", ...headers });
  res.end(JSON.stringify({ errors: [{ code, message }] }));
}

/** Sends a blob, from where it is asked for. */
export function sendBlob(
  req: IncomingMessage,
  res: ServerResponse,
  blob: Buffer,
): void {
  const from = Number(/^bytes=(\d+)-$/.exec(req.headers.range ?? "")?.[1] ?? 0);
  const part = blob.subarray(from);
  res.writeHead(from > 0 ? 206 : 200, {
    "Content-Length": part.length,
    ...(from > 0
      ? { "Content-Range": `bytes ${from}-${blob.length - 1}/${blob.length}` }
      : {}),
  });
  res.end(part);
}
