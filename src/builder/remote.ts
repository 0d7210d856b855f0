/** A build context that the daemon fetches itself (`remote` of `POST /build`): an archive, or a Dockerfile. */
import { Readable } from "node:stream";
import { pack } from "tar-stream";
import { fetchFile, isUrl } from "../archive/fetch.js";
import { InvalidParameter, NotImplemented } from "../errors.js";
import { MAX_DOCKERFILE } from "./options.js";

export interface RemoteContext {
  archive: Readable;
  /** Where the Dockerfile is in it, when the URL was the Dockerfile's own. */
  dockerfile?: string;
}

/**
 * @throws {InvalidParameter} it cannot be fetched
 * @throws {NotImplemented} a Git repository
 */
export async function remoteContext(
  url: string,
  signal: AbortSignal,
): Promise<RemoteContext> {
  if (!isUrl(url) || /\.git(#.*)?$/.test(url)) {
    throw new NotImplemented(
      `remote: hull fetches archives and Dockerfiles by HTTP, no Git repositories: ${url}`,
    );
  }
  try {
    const { body, contentType } = await fetchFile(url, signal);
    if (!/^text\/plain\b/i.test(contentType)) return { archive: body };
    return { archive: await packed(body), dockerfile: "Dockerfile" };
  } catch (error) {
    signal.throwIfAborted();
    throw new InvalidParameter(
      `error downloading remote context ${url}: ${(error as Error).message}`,
    );
  }
}

async function packed(body: Readable): Promise<Readable> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_DOCKERFILE) throw new Error("the Dockerfile is too large");
    chunks.push(chunk);
  }
  const archive = pack();
  archive.entry({ name: "Dockerfile" }, Buffer.concat(chunks));
  archive.finalize();
  return Readable.from(archive);
}
