/** Reading JSON request bodies by the Engine's rules. */
import type { IncomingMessage } from "node:http";
import type { z } from "zod";
import { InvalidParameter } from "../errors.js";
import type { ApiContext } from "./context.js";
import { HttpFailure } from "./errors.js";
import { isUpgrade, readUpgradeBody } from "./upgrade.js";

/** Largest JSON body that is read, in bytes. */
export const MAX_JSON = 4 * 1024 * 1024;
/** How long a client may take to send a JSON body. */
const BODY_TIMEOUT_MS = 60_000;

/**
 * Reads the request's JSON body and checks it against a schema. Fields the schema does not know are
 * dropped. No body at all counts as `{}`: the schema decides what must be there.
 * @throws {InvalidParameter} wrong Content-Type, or malformed JSON
 * @throws {ZodError} a field is wrong
 * @throws {HttpFailure} too large (413) or too slow (408)
 */
export async function readJson<Schema extends z.ZodType>(
  ctx: ApiContext,
  schema: Schema,
): Promise<z.output<Schema>> {
  const text = await readBody(ctx);
  const declared = ctx.get("Content-Type");
  if (declared !== "" || text !== "") checkContentType(declared);
  if (text === "") {
    if (ctx.req.headers["transfer-encoding"] !== undefined) {
      throw new InvalidParameter(
        "invalid JSON: got EOF while reading request body",
      );
    }
    return schema.parse({});
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new InvalidParameter(`invalid JSON: ${(error as Error).message}`);
  }
  return schema.parse(json ?? {});
}

function checkContentType(declared: string): void {
  const type = /^([\w!#$&^.+-]+\/[\w!#$&^.+-]+)\s*(;.*)?$/.exec(declared)?.[1];
  if (type === undefined) {
    throw new InvalidParameter(`malformed Content-Type header (${declared})`);
  }
  if (type.toLowerCase() !== "application/json") {
    throw new InvalidParameter(
      `unsupported Content-Type header (${declared}): must be 'application/json'`,
    );
  }
}

async function readBody(ctx: ApiContext): Promise<string> {
  const { req } = ctx;
  let timer: NodeJS.Timeout | undefined;
  const slow = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new HttpFailure(408, "timeout while reading the request body"));
    }, BODY_TIMEOUT_MS);
  });
  try {
    const body = isUpgrade(req)
      ? readUpgradeBody(req, MAX_JSON)
      : collect(req, MAX_JSON);
    return (await Promise.race([body, slow])).toString("utf8");
  } finally {
    clearTimeout(timer);
  }
}

function collect(req: IncomingMessage, limit: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    req.on("data", (chunk: Buffer) => {
      size += chunk.length;
      if (size <= limit) chunks.push(chunk);
      else {
        chunks.length = 0;
        reject(new HttpFailure(413, `request body larger than ${limit} bytes`));
      }
    });
    req.on("end", () => resolve(Buffer.concat(chunks)));
    const cutShort = () =>
      reject(new HttpFailure(400, "the request body is cut short"));
    req.on("error", cutShort);
    req.on("close", cutShort);
  });
}
