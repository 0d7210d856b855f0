import { z } from "zod";
import { type Challenge, parseChallenges } from "./challenge.js";
import type { Credentials } from "./credentials.js";
import type { TlsSettings } from "./endpoints.js";
import { codedError, errorFromAnswer, RegistryError } from "./errors.js";
import { readAnswer, type Transport } from "./transport.js";

const CLIENT_ID = "hull";
const MAX_TOKEN_ANSWER = 1024 * 1024;
/** The least a token is good for, by the specification of token authentication. */
const MIN_TOKEN_SECONDS = 60;
/** A token is not used in its last seconds. */
const TOKEN_MARGIN_MS = 10_000;

const TokenAnswer = z.object({
  token: z.string().nullish(),
  access_token: z.string().nullish(),
  expires_in: z.number().nullish(),
});

/**
 * Proves at one endpoint who the client is, in the way the endpoint asks for (Basic, or Bearer with a
 * token from the server it names).
 */
export class Authorizer {
  #challenges: Challenge[] = [];
  #token: { value: string; until: number } | undefined;
  #pending: Promise<string> | undefined;
  /** The last header carried a user name and password. */
  sentBasic = false;

  constructor(
    readonly transport: Transport,
    readonly tls: TlsSettings,
    readonly credentials: Credentials,
    /** e.g. "repository:library/busybox:pull" */
    readonly scope: string,
  ) {}

  /** Notes what an endpoint asks for. @returns whether anything can be answered to it */
  challenged(header: string | string[] | undefined): boolean {
    this.#challenges = parseChallenges(header).filter(
      ({ scheme }) => scheme === "bearer" || scheme === "basic",
    );
    this.#token = undefined;
    return this.#challenges.length > 0;
  }

  /**
   * The Authorization header for a request; none when the endpoint did not ask.
   * @throws {RegistryError} no credentials, or refused
   */
  async header(signal: AbortSignal): Promise<Record<string, string>> {
    const { credentials } = this;
    if (credentials.registryToken !== "") {
      return { authorization: `Bearer ${credentials.registryToken}` };
    }
    const bearer = this.#challenges.find(({ scheme }) => scheme === "bearer");
    if (bearer !== undefined) {
      return { authorization: `Bearer ${await this.#bearer(bearer, signal)}` };
    }
    if (this.#challenges.length === 0) return {};
    if (credentials.username === "") {
      throw new RegistryError("UNAUTHORIZED", "no basic auth credentials", 401);
    }
    this.sentBasic = true;
    return { authorization: basicAuthorization(credentials) };
  }

  async #bearer(challenge: Challenge, signal: AbortSignal): Promise<string> {
    if (this.#token !== undefined && Date.now() < this.#token.until) {
      return this.#token.value;
    }
    // Parallel requests share one question.
    this.#pending ??= this.#fetchToken(challenge, signal).finally(() => {
      this.#pending = undefined;
    });
    return this.#pending;
  }

  async #fetchToken(
    challenge: Challenge,
    signal: AbortSignal,
  ): Promise<string> {
    const { credentials, transport, tls } = this;
    const realm = challenge.parameters.get("realm") ?? "";
    const service = challenge.parameters.get("service") ?? "";
    const url = URL.canParse(realm) ? new URL(realm) : undefined;
    if (
      url === undefined ||
      (url.protocol !== "https:" && url.protocol !== "http:")
    ) {
      throw new RegistryError(
        "",
        `the registry names no usable token server: ${JSON.stringify(realm.slice(0, 200))}`,
      );
    }
    const headers: Record<string, string> = { accept: "application/json" };
    let body: string | undefined;
    if (credentials.identityToken !== "") {
      headers["content-type"] = "application/x-www-form-urlencoded";
      body = new URLSearchParams({
        grant_type: "refresh_token",
        refresh_token: credentials.identityToken,
        service,
        client_id: CLIENT_ID,
        scope: this.scope,
      }).toString();
    } else {
      if (service !== "") url.searchParams.set("service", service);
      if (this.scope !== "") url.searchParams.append("scope", this.scope);
      if (credentials.username !== "") {
        url.searchParams.set("account", credentials.username);
        headers["authorization"] = basicAuthorization(credentials);
      }
    }
    const answer = await transport.send({
      method: body === undefined ? "GET" : "POST",
      url,
      headers,
      ...(body === undefined ? {} : { body }),
      tls,
      signal,
    });
    const bytes = await readAnswer(answer, MAX_TOKEN_ANSWER, url);
    if (answer.statusCode !== 200) {
      throw tokenRefused(answer.statusCode, bytes.toString("utf8"));
    }
    const parsed = TokenAnswer.safeParse(parseJson(bytes));
    const value = parsed.data?.token ?? parsed.data?.access_token ?? "";
    if (value === "" || /[^\x21-\x7e]/.test(value)) {
      throw new RegistryError(
        "",
        "authorization server did not include a token in the response",
      );
    }
    const seconds = Math.max(
      parsed.data?.expires_in ?? MIN_TOKEN_SECONDS,
      MIN_TOKEN_SECONDS,
    );
    this.#token = {
      value,
      until: Date.now() + seconds * 1000 - TOKEN_MARGIN_MS,
    };
    return value;
  }
}

function tokenRefused(status: number, body: string): RegistryError {
  // Token servers answer either as registries do or with {"details": …}.
  const details = (parseJson(Buffer.from(body)) as { details?: unknown } | null)
    ?.details;
  if (status === 401 && typeof details === "string") {
    return codedError("UNAUTHORIZED", details.slice(0, 1000), status);
  }
  return errorFromAnswer(status, body, undefined);
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString("utf8")) as unknown;
  } catch {
    return null;
  }
}

/** The Authorization header of Basic authentication. */
export function basicAuthorization({
  username,
  password,
}: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
}
