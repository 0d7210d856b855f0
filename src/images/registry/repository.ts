/** A repository of a registry, by the OCI distribution specification. */
import { STATUS_CODES } from "node:http";
import { Readable } from "node:stream";
import { type Digest, digestOf, isDigest } from "../digest.js";
import { Authorizer } from "./authorizer.js";
import { parseChallenges } from "./challenge.js";
import type { Credentials } from "./credentials.js";
import type { Endpoint } from "./endpoints.js";
import { errorFromAnswer, RegistryError, requestLine } from "./errors.js";
import {
  discard,
  readAnswer,
  type RegistryAnswer,
  type Transport,
} from "./transport.js";

/** The longest manifest or index, as the distribution specification has it. */
export const MAX_MANIFEST = 4 * 1024 * 1024;
const MAX_ERROR = 64 * 1024;
const MAX_TAGS_PAGE = 4 * 1024 * 1024;
const MAX_TAGS = 10_000;

const MANIFEST_TYPES = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
  "application/vnd.docker.distribution.manifest.v2+json",
  "application/vnd.docker.distribution.manifest.v1+prettyjws",
  "*/*",
].join(", ");

export interface ManifestAnswer {
  digest: Digest;
  /** Of the Content-Type header. */
  mediaType: string;
  bytes: Buffer;
}

/** One repository at one endpoint. */
export class Repository {
  readonly #transport: Transport;
  readonly #authorizer: Authorizer;
  readonly endpoint: Endpoint;
  readonly path: string;

  constructor(
    transport: Transport,
    endpoint: Endpoint,
    path: string,
    credentials: Credentials,
    /** What a token is to allow, e.g. "pull,push". */
    actions = "pull",
  ) {
    this.#transport = transport;
    this.endpoint = endpoint;
    this.path = path;
    this.#authorizer = new Authorizer(
      transport,
      endpoint.tls,
      credentials,
      path === "" ? "" : `repository:${path}:${actions}`,
    );
  }

  /**
   * Asks for the API's root: tells that a registry is there and how it wants to be asked.
   * @throws {RegistryError} there is none
   */
  async ping(signal: AbortSignal): Promise<void> {
    const url = new URL(`${this.endpoint.base}/v2/`);
    const answer = await this.#transport.send({
      method: "GET",
      url,
      tls: this.endpoint.tls,
      signal,
    });
    await discard(answer);
    if (answer.statusCode === 401) {
      this.#authorizer.challenged(answer.headers["www-authenticate"]);
    } else if (answer.statusCode >= 500) {
      throw new RegistryError(
        "",
        `Get "${url.href}": received unexpected HTTP status: ${answer.statusCode}`,
        answer.statusCode,
      );
    }
  }

  /**
   * Asks for the API's root with the credentials.
   * @throws {RegistryError} refused, in the Engine's words
   */
  async checkLogin(signal: AbortSignal): Promise<void> {
    const answer = await this.#send("GET", "", {}, signal);
    await discard(answer);
    const { statusCode } = answer;
    if (statusCode === 200) return;
    throw new RegistryError(
      statusCode === 401 ? "UNAUTHORIZED" : "",
      `login attempt to ${this.#url("").href} failed with status: ${statusCode} ${STATUS_CODES[statusCode] ?? ""}`.trim(),
      statusCode,
    );
  }

  /** Asks for a tag's digest; undefined when the registry does not tell without sending it all. */
  async head(
    reference: string,
    signal: AbortSignal,
  ): Promise<{ digest: Digest; mediaType: string; size: number } | undefined> {
    const answer = await this.#send(
      "HEAD",
      `manifests/${reference}`,
      { accept: MANIFEST_TYPES },
      signal,
    );
    await discard(answer);
    const digest = answer.headers["docker-content-digest"];
    if (
      answer.statusCode !== 200 ||
      typeof digest !== "string" ||
      !isDigest(digest)
    ) {
      return undefined;
    }
    return {
      digest,
      mediaType: mediaTypeOf(answer),
      size: Number(answer.headers["content-length"] ?? 0),
    };
  }

  /**
   * Fetches a manifest or index by tag or digest; a digest is verified.
   * @throws {RegistryError} the registry's error, too long, or not what the digest says
   */
  async manifest(
    reference: string,
    signal: AbortSignal,
  ): Promise<ManifestAnswer> {
    const answer = await this.get(
      `manifests/${reference}`,
      { accept: MANIFEST_TYPES },
      signal,
    );
    const bytes = await readAnswer(
      answer,
      MAX_MANIFEST,
      this.#url(`manifests/${reference}`),
    );
    const digest = digestOf(bytes);
    if (reference.includes(":") && reference !== digest) {
      throw new RegistryError(
        "",
        `manifest verification failed for digest ${reference}`,
      );
    }
    return { digest, mediaType: mediaTypeOf(answer), bytes };
  }

  /**
   * Opens a blob's stream.
   * @param offset first byte wanted; the answer may begin at 0 nevertheless
   * @throws {RegistryError} the registry's error
   */
  async blob(
    digest: Digest,
    offset: number,
    signal: AbortSignal,
  ): Promise<{ stream: Readable; offset: number }> {
    const path = `blobs/${digest}`;
    const answer = await this.get(
      path,
      offset > 0 ? { range: `bytes=${offset}-` } : {},
      signal,
      [416],
    );
    if (answer.statusCode === 416) {
      await discard(answer);
      return { stream: Readable.from([]), offset };
    }
    const range = /^bytes (\d+)-/.exec(String(answer.headers["content-range"]));
    const begin = answer.statusCode === 206 ? Number(range?.[1] ?? offset) : 0;
    if (begin !== offset && begin !== 0) {
      answer.body.destroy();
      throw new RegistryError(
        "",
        `blob ${digest}: the registry sent another part`,
      );
    }
    answer.body.on("error", () => {});
    return { stream: answer.body, offset: begin };
  }

  /**
   * Fetches a small blob, verified.
   * @throws {RegistryError} the registry's error, too long, or not what the digest says
   */
  async smallBlob(
    digest: Digest,
    size: number,
    signal: AbortSignal,
  ): Promise<Buffer> {
    const path = `blobs/${digest}`;
    const answer = await this.get(path, {}, signal);
    const bytes = await readAnswer(answer, size, this.#url(path));
    if (digestOf(bytes) !== digest) {
      throw new RegistryError(
        "",
        `image config verification failed for digest ${digest}`,
      );
    }
    return bytes;
  }

  /**
   * Whether a blob is there.
   * @throws {RegistryError} the registry's error
   */
  async hasBlob(digest: Digest, signal: AbortSignal): Promise<boolean> {
    const answer = await this.#send("HEAD", `blobs/${digest}`, {}, signal);
    await discard(answer);
    if (answer.statusCode === 200) return true;
    if (answer.statusCode === 404) return false;
    throw errorFromAnswer(answer.statusCode, "", bearerOf(answer));
  }

  /**
   * Uploads a blob, unless the registry can take it from another of its repositories.
   * @param content makes its stream
   * @param from a repository that has it
   * @throws {RegistryError} the registry's error
   */
  async putBlob(
    { digest, size }: { digest: Digest; size: number },
    content: () => Readable | Buffer,
    from: string | undefined,
    signal: AbortSignal,
  ): Promise<"uploaded" | "mounted"> {
    const mount =
      from === undefined
        ? ""
        : `?${new URLSearchParams({ mount: digest, from }).toString()}`;
    const begun = await this.#send(
      "POST",
      `blobs/uploads/${mount}`,
      {},
      signal,
    );
    if (begun.statusCode === 201) {
      await discard(begun);
      return "mounted";
    }
    if (begun.statusCode !== 202) throw await this.#failure(begun, "POST");
    await discard(begun);
    const { location } = begun.headers;
    const base = this.#url("blobs/uploads/").href;
    if (typeof location !== "string" || !URL.canParse(location, base)) {
      throw new RegistryError("", "the registry names no place for an upload");
    }
    const url = new URL(location, base);
    url.searchParams.set("digest", digest);
    const answer = await this.#transport.send({
      method: "PUT",
      url,
      headers: {
        "content-type": "application/octet-stream",
        "content-length": String(size),
        // Credentials are for the registry itself only.
        ...(url.origin === new URL(base).origin
          ? await this.#authorize("PUT", url, signal)
          : {}),
      },
      body: content(),
      tls: this.endpoint.tls,
      signal,
    });
    if (answer.statusCode !== 201) throw await this.#failure(answer, "PUT");
    await discard(answer);
    return "uploaded";
  }

  /**
   * Puts a manifest under a tag.
   * @throws {RegistryError} the registry's error
   */
  async putManifest(
    tag: string,
    mediaType: string,
    bytes: Buffer,
    signal: AbortSignal,
  ): Promise<void> {
    const answer = await this.#send(
      "PUT",
      `manifests/${tag}`,
      { "content-type": mediaType },
      signal,
      bytes,
    );
    if (![200, 201, 202].includes(answer.statusCode)) {
      throw await this.#failure(answer, "PUT");
    }
    await discard(answer);
  }

  async #failure(
    answer: RegistryAnswer,
    method: string,
  ): Promise<RegistryError> {
    const body = await readAnswer(
      answer,
      MAX_ERROR,
      new URL(`${this.endpoint.base}/v2/#${method}`),
    ).then(
      (bytes) => bytes.toString("utf8"),
      () => "",
    );
    return errorFromAnswer(answer.statusCode, body, bearerOf(answer));
  }

  /**
   * All tags of the repository.
   * @throws {RegistryError} the registry's error, or more tags than anybody has
   */
  async tags(signal: AbortSignal): Promise<string[]> {
    const tags: string[] = [];
    let path: string | undefined = "tags/list";
    while (path !== undefined) {
      const answer = await this.get(path, {}, signal);
      const url = this.#url(path);
      const bytes = await readAnswer(answer, MAX_TAGS_PAGE, url);
      let page: unknown;
      try {
        page = (JSON.parse(bytes.toString("utf8")) as { tags?: unknown }).tags;
      } catch {
        page = undefined;
      }
      if (page !== null && !Array.isArray(page)) {
        throw new RegistryError(
          "",
          `Get "${url.href}": malformed list of tags`,
        );
      }
      for (const tag of page ?? []) if (typeof tag === "string") tags.push(tag);
      if (tags.length > MAX_TAGS) {
        throw new RegistryError("", `${this.path} has too many tags`);
      }
      path = nextPage(answer, url, path);
    }
    return tags;
  }

  /**
   * A GET below the repository ("" is the API's root) that must succeed.
   * @param allowed further statuses that are no errors
   * @throws {RegistryError} the registry's error
   */
  async get(
    path: string,
    headers: Record<string, string>,
    signal: AbortSignal,
    allowed: readonly number[] = [],
  ): Promise<RegistryAnswer> {
    const answer = await this.#send("GET", path, headers, signal);
    const { statusCode } = answer;
    if (statusCode === 200 || statusCode === 206) return answer;
    if (allowed.includes(statusCode)) return answer;
    const body = await readAnswer(answer, MAX_ERROR, this.#url(path)).then(
      (bytes) => bytes.toString("utf8"),
      () => "",
    );
    throw errorFromAnswer(statusCode, body, bearerOf(answer));
  }

  async #send(
    method: "GET" | "HEAD" | "POST" | "PUT",
    path: string,
    headers: Record<string, string>,
    signal: AbortSignal,
    body?: Buffer,
  ): Promise<RegistryAnswer> {
    const url = this.#url(path);
    const attempt = async (): Promise<RegistryAnswer> =>
      this.#transport.send({
        method,
        url,
        headers: {
          ...headers,
          ...(await this.#authorize(method, url, signal)),
        },
        ...(body ? { body } : {}),
        tls: this.endpoint.tls,
        signal,
      });
    const answer = await attempt();
    if (answer.statusCode !== 401) return answer;
    const { "www-authenticate": challenge } = answer.headers;
    // The token ran out, or this repository asks for more than the API's root did. Basic credentials
    // that were refused once are refused again.
    if (this.#authorizer.sentBasic || !this.#authorizer.challenged(challenge)) {
      return answer;
    }
    await discard(answer);
    return attempt();
  }

  /** The Authorization header; without one to give, the request itself counts as failed. */
  async #authorize(
    method: string,
    url: URL,
    signal: AbortSignal,
  ): Promise<Record<string, string>> {
    try {
      return await this.#authorizer.header(signal);
    } catch (error) {
      if (!(error instanceof RegistryError)) throw error;
      const { code, message, status } = error;
      const text = `${requestLine(method, url)}: ${message}`;
      throw new RegistryError(code, text, status, { cause: error });
    }
  }

  #url(path: string): URL {
    const { base } = this.endpoint;
    return new URL(
      path === "" ? `${base}/v2/` : `${base}/v2/${this.path}/${path}`,
    );
  }
}

function bearerOf(answer: RegistryAnswer) {
  return parseChallenges(answer.headers["www-authenticate"]).find(
    ({ scheme }) => scheme === "bearer",
  );
}

function mediaTypeOf(answer: RegistryAnswer): string {
  const [type = ""] = String(answer.headers["content-type"] ?? "").split(";");
  return type.trim();
}

/** The next page of a list, by the Link header; only within the same list. */
function nextPage(
  answer: RegistryAnswer,
  url: URL,
  path: string,
): string | undefined {
  const { link } = answer.headers;
  const target = /^<([^>]+)>;\s*rel="?next"?/.exec(String(link ?? ""))?.[1];
  if (target === undefined || !URL.canParse(target, url.href)) return undefined;
  const { search } = new URL(target, url.href);
  const next = `tags/list${search}`;
  return next === path || search === "" ? undefined : next;
}
