/** Asks an index what it has, by its v1 API: the one thing of that API that is still alive. */
import { z } from "zod";
import { InvalidParameter, SystemError } from "../../errors.js";
import { Authorizer, basicAuthorization } from "./authorizer.js";
import type { Credentials } from "./credentials.js";
import {
  type RegistryOptions,
  tlsSettings,
  type TlsSettings,
} from "./endpoints.js";
import { discard, readAnswer, type Transport } from "./transport.js";

/** Docker Hub's. Its registry, registry-1.docker.io, answers no searches. */
const HUB = "docker.io";
const HUB_INDEX = "https://index.docker.io/v1/";
/** The scope of a token that may search, as the Engine asks for it. */
const SCOPE = "registry:catalog:search";
const DEFAULT_LIMIT = 25;
const MAX_LIMIT = 100;
const MAX_ANSWER = 4 * 1024 * 1024;

const text = z
  .string()
  .nullish()
  .transform((value) => value ?? "");
const Answer = z.object({
  results: z
    .array(
      z.object({
        name: text,
        description: text,
        star_count: z
          .number()
          .int()
          .nullish()
          .transform((value) => value ?? 0),
        is_official: z
          .boolean()
          .nullish()
          .transform((value) => value ?? false),
      }),
    )
    .nullish()
    .transform((value) => value ?? []),
});
export type IndexEntry = z.infer<typeof Answer>["results"][number];

export interface IndexSearch {
  /** What is looked for; "HOST/TERM" looks for it at another index than Docker Hub's. */
  term: string;
  /** The most entries to be answered: 1 to 100, and 0 for the default of 25. */
  limit: number;
  credentials: Credentials;
  signal: AbortSignal;
}

/**
 * Searches an index.
 * @throws {InvalidParameter} a term or limit that cannot be, or a host that is no index
 * @throws {SystemError} the index does not answer, or not with a list
 */
export async function searchIndex(
  transport: Transport,
  options: RegistryOptions,
  { term, limit, credentials, signal }: IndexSearch,
): Promise<IndexEntry[]> {
  if (term.includes("://")) {
    throw new InvalidParameter(
      `invalid repository name: repository name (${term}) should not have a scheme`,
    );
  }
  const { host, name } = split(term);
  const index = await findIndex(transport, options, host, signal);
  const count = limit === 0 ? DEFAULT_LIMIT : limit;
  if (count < 1 || count > MAX_LIMIT) {
    throw new InvalidParameter(
      `limit ${limit} is outside the range of [1, ${MAX_LIMIT}]`,
    );
  }
  const query = new URLSearchParams([
    ["q", name],
    ["n", String(count)],
  ]);
  const url = new URL(`${index.base}search?${query.toString()}`);
  const answer = await told(
    transport.send({
      method: "GET",
      url,
      tls: index.tls,
      signal,
      headers: {
        "x-docker-token": "true",
        ...(await authorization(transport, index, credentials, signal)),
      },
    }),
  );
  if (answer.statusCode !== 200) {
    await discard(answer);
    throw new SystemError(`Unexpected status code ${answer.statusCode}`);
  }
  const bytes = await told(readAnswer(answer, MAX_ANSWER, url));
  return entries(bytes).slice(0, count);
}

interface Index {
  /** Ends in a slash. */
  base: string;
  tls: TlsSettings;
}

/** The index a term names, which is Docker Hub's without a host, and what is to be looked for in it. */
function split(term: string): { host: string; name: string } {
  const slash = term.indexOf("/");
  const host = slash < 0 ? "" : term.slice(0, slash);
  const isHost = /[.:]/.test(host) || host === "localhost";
  if (isHost && host !== HUB && host !== `index.${HUB}`) {
    return { host, name: term.slice(slash + 1) };
  }
  const name = isHost ? term.slice(slash + 1) : term;
  return { host: HUB, name: name.replace(/^library\//, "") };
}

/** Looks whether an index is there, by HTTPS and, where that is allowed, by HTTP. */
async function findIndex(
  transport: Transport,
  options: RegistryOptions,
  host: string,
  signal: AbortSignal,
): Promise<Index> {
  if (host.startsWith("-") || host.endsWith("-")) {
    throw new InvalidParameter(
      `invalid index name (${host}). Cannot begin or end with a hyphen`,
    );
  }
  if (host !== HUB && !URL.canParse(`https://${host}`)) {
    throw new InvalidParameter(
      `invalid registry host: ${JSON.stringify(host)}`,
    );
  }
  const tls = await tlsSettings(
    host === HUB ? new URL(HUB_INDEX).host : host,
    options,
  );
  // The Hub is known to be there, and never asked by HTTP.
  if (host === HUB) return { base: HUB_INDEX, tls };
  const ping = async (scheme: string): Promise<Index | Error> => {
    const base = `${scheme}://${host}/v1/`;
    try {
      // Whatever it answers, it is there.
      const url = new URL(`${base}_ping`);
      await discard(await transport.send({ method: "GET", url, tls, signal }));
      return { base, tls };
    } catch (error) {
      signal.throwIfAborted();
      return error instanceof Error ? error : new Error(String(error));
    }
  };
  const secure = await ping("https");
  if (!(secure instanceof Error)) return secure;
  if (tls.verify) {
    throw new InvalidParameter(
      `invalid registry endpoint https://${host}/v1/: ${secure.message}. If this private registry supports only HTTP or HTTPS with an unknown CA certificate, add \`--insecure-registry ${host}\` to the daemon's arguments. In the case of HTTPS, if you have access to the registry's CA certificate, no need for the flag; simply place the CA certificate at /etc/docker/certs.d/${host}/ca.crt`,
    );
  }
  const plain = await ping("http");
  if (!(plain instanceof Error)) return plain;
  throw new InvalidParameter(
    `invalid registry endpoint "http://${host}/v1/". HTTPS attempt: ${secure.message}. HTTP attempt: ${plain.message}`,
  );
}

/** A name and password are sent as they are; who has an identity token only, gets a token for it. */
async function authorization(
  transport: Transport,
  { base, tls }: Index,
  credentials: Credentials,
  signal: AbortSignal,
): Promise<Record<string, string>> {
  if (credentials.username === "") return {};
  if (credentials.identityToken === "") {
    return { authorization: basicAuthorization(credentials) };
  }
  const authorizer = new Authorizer(transport, tls, credentials, SCOPE);
  const url = new URL("/v2/", base);
  const answer = await told(
    transport.send({ method: "GET", url, tls, signal }),
  );
  await discard(answer);
  authorizer.challenged(answer.headers["www-authenticate"]);
  return told(authorizer.header(signal));
}

/** What an index does, or fails to do, is the daemon's failure, and not the client's. */
async function told<T>(asked: Promise<T>): Promise<T> {
  try {
    return await asked;
  } catch (error) {
    throw error instanceof Error && error.name !== "AbortError"
      ? new SystemError(error.message, { cause: error })
      : error;
  }
}

function entries(bytes: Buffer): IndexEntry[] {
  let json: unknown;
  try {
    json = JSON.parse(bytes.toString("utf8"));
  } catch (error) {
    throw new SystemError(
      `error decoding registry search results: ${String(error)}`,
      { cause: error },
    );
  }
  const parsed = Answer.safeParse(json);
  if (parsed.success) return parsed.data.results;
  const [issue] = parsed.error.issues;
  throw new SystemError(
    `error decoding registry search results: ${issue?.path.join(".") ?? ""}: ${issue?.message ?? ""}`,
  );
}
