import { createHash } from "node:crypto";
import { createSecureContext, rootCertificates } from "node:tls";
import type { Readable } from "node:stream";
import { Agent, type Dispatcher, request } from "undici";
import { SystemError } from "../../errors.js";
import type { TlsSettings } from "./endpoints.js";
import { connectionError, RegistryError } from "./errors.js";

const USER_AGENT = "hull/0.1.0";
const MAX_REDIRECTS = 10;
const CONNECT_TIMEOUT_MS = 30_000;
/** A registry may think for so long before it answers, and between two pieces of an answer. */
const IDLE_TIMEOUT_MS = 120_000;
/** Agents are kept for the TLS settings in use. */
const MAX_AGENTS = 32;

export interface RegistryRequest {
  method: "GET" | "HEAD" | "POST" | "PUT";
  url: URL;
  headers?: Record<string, string>;
  body?: string | Buffer | Readable;
  tls: TlsSettings;
  signal: AbortSignal;
}

export type RegistryAnswer = Dispatcher.ResponseData;

/** Sends requests over connections that are kept for the next one, following redirects. */
export class Transport {
  readonly #agents = new Map<string, Agent>();

  /**
   * Follows redirects of GET and HEAD. Credentials go to the origin they were meant for only: blob
   * stores get none.
   * @throws {RegistryError} no answer, in the words of {@link connectionError}
   */
  async send(wanted: RegistryRequest): Promise<RegistryAnswer> {
    let { url } = wanted;
    for (let redirects = 0; ; redirects++) {
      const foreign = url.origin !== wanted.url.origin;
      const answer = await this.#once(wanted, url, foreign);
      const { location } = answer.headers;
      if (
        wanted.method === "POST" ||
        wanted.method === "PUT" ||
        ![301, 302, 303, 307, 308].includes(answer.statusCode) ||
        typeof location !== "string"
      ) {
        return answer;
      }
      await discard(answer);
      if (redirects === MAX_REDIRECTS) {
        throw new RegistryError(
          "",
          `Get "${wanted.url.href}": stopped after ${MAX_REDIRECTS} redirects`,
        );
      }
      const next = URL.canParse(location, url.href)
        ? new URL(location, url.href)
        : undefined;
      if (
        next === undefined ||
        (next.protocol !== "https:" && next.protocol !== "http:")
      ) {
        throw new RegistryError(
          "",
          `Get "${wanted.url.href}": the registry redirects to an impossible address`,
        );
      }
      next.username = "";
      next.password = "";
      url = next;
    }
  }

  async #once(
    wanted: RegistryRequest,
    url: URL,
    foreign: boolean,
  ): Promise<RegistryAnswer> {
    const headers: Record<string, string> = {
      "user-agent": USER_AGENT,
      ...wanted.headers,
    };
    // Range requests count on bytes as they are stored.
    headers["accept-encoding"] = "identity";
    if (foreign) delete headers["authorization"];
    const tls = foreign ? { ...wanted.tls, certificates: [] } : wanted.tls;
    try {
      return await request(url, {
        method: wanted.method,
        headers,
        ...(wanted.body === undefined ? {} : { body: wanted.body }),
        dispatcher: this.#agent(tls),
        signal: wanted.signal,
      });
    } catch (error) {
      if (wanted.signal.aborted) throw wanted.signal.reason;
      throw connectionError(wanted.method, url, error);
    }
  }

  #agent(tls: TlsSettings): Agent {
    const key = createHash("sha256").update(JSON.stringify(tls)).digest("hex");
    const known = this.#agents.get(key);
    if (known !== undefined) return known;
    const [oldest] = this.#agents.keys();
    if (this.#agents.size >= MAX_AGENTS && oldest !== undefined) {
      void this.#agents.get(oldest)?.close();
      this.#agents.delete(oldest);
    }
    const agent = new Agent({
      connect: { timeout: CONNECT_TIMEOUT_MS, ...connectOptions(tls) },
      headersTimeout: IDLE_TIMEOUT_MS,
      bodyTimeout: IDLE_TIMEOUT_MS,
    });
    this.#agents.set(key, agent);
    return agent;
  }

  /** Ends all connections. */
  async close(): Promise<void> {
    const agents = [...this.#agents.values()];
    this.#agents.clear();
    await Promise.all(agents.map((agent) => agent.destroy()));
  }
}

function connectOptions(tls: TlsSettings): Record<string, unknown> {
  const options: Record<string, unknown> = { rejectUnauthorized: tls.verify };
  // A private CA is trusted beside the public ones, as Docker does.
  if (tls.ca.length > 0) options["ca"] = [...rootCertificates, ...tls.ca];
  if (tls.certificates.length > 0) {
    options["cert"] = tls.certificates.map(({ cert }) => cert);
    options["key"] = tls.certificates.map(({ key }) => key);
  }
  try {
    createSecureContext(options);
  } catch (error) {
    throw new SystemError(
      `the registry's certificates cannot be used: ${(error as Error).message}`,
      { cause: error },
    );
  }
  return options;
}

/**
 * Reads an answer's body into memory.
 * @throws {RegistryError} it is longer than the limit or breaks off
 */
export async function readAnswer(
  answer: RegistryAnswer,
  limit: number,
  url: URL,
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > limit) break;
      chunks.push(chunk);
    }
  } catch (error) {
    throw connectionError("GET", url, error);
  }
  if (size > limit) {
    throw new RegistryError(
      "",
      `Get "${url.href}": the answer is longer than ${limit} bytes`,
    );
  }
  return Buffer.concat(chunks);
}

/** Gives up an answer's body, keeping the connection when little is left of it. */
export async function discard(answer: RegistryAnswer): Promise<void> {
  try {
    await answer.body.dump({ limit: 64 * 1024 });
  } catch {
    // The connection is gone, which is as good.
  }
}
