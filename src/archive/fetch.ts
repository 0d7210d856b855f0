/** Files that a user names by URL: `ADD http://…`, `docker import http://…`, `remote` of a build. */
import { Readable } from "node:stream";
import { fetch } from "undici";

export interface Fetched {
  /** To be read to its end or destroyed. */
  body: Readable;
  contentType: string;
  /** RFC 1123, as the server said it. */
  lastModified: string | undefined;
}

/** A server answered, with something else than the file. */
export class BadAnswer extends Error {
  constructor(
    readonly url: string,
    /** E.g. "404 Not Found". */
    readonly status: string,
  ) {
    super(`failed to GET ${url} with status ${status}`);
  }
}

/** Whether it is a URL of a kind that is fetched. */
export function isUrl(text: string): boolean {
  return /^https?:\/\//i.test(text);
}

/**
 * Gets a file; redirects are followed.
 * @throws {BadAnswer} @throws what kept the server from being reached
 */
export async function fetchFile(
  url: string,
  signal: AbortSignal,
): Promise<Fetched> {
  const answer = await fetch(url, { signal }).catch((error: unknown) => {
    // What undici says of itself is "fetch failed".
    throw error instanceof Error && error.cause instanceof Error
      ? error.cause
      : error;
  });
  if (!answer.ok || !answer.body) {
    await answer.body?.cancel();
    throw new BadAnswer(url, `${answer.status} ${answer.statusText}`.trim());
  }
  return {
    body: Readable.fromWeb(answer.body),
    contentType: answer.headers.get("content-type") ?? "",
    lastModified: answer.headers.get("last-modified") ?? undefined,
  };
}
