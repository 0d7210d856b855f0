import { z } from "zod";
import { InvalidParameter } from "../../errors.js";

/** Who the client is at a registry; all empty for nobody. */
export interface Credentials {
  username: string;
  password: string;
  /** An OAuth2 refresh token, instead of a password. */
  identityToken: string;
  /** A bearer token to be sent as it is. */
  registryToken: string;
}

export const ANONYMOUS: Credentials = {
  username: "",
  password: "",
  identityToken: "",
  registryToken: "",
};

const text = z
  .string()
  .nullish()
  .transform((value) => value ?? "");

/** AuthConfig of the Engine API. */
const AuthConfig = z.object({
  username: text,
  password: text,
  auth: text,
  identitytoken: text,
  registrytoken: text,
});

/**
 * Reads an X-Registry-Auth header: AuthConfig as JSON in base64 (the URL's alphabet).
 * @throws {InvalidParameter} malformed
 */
export function decodeRegistryAuth(header: string): Credentials {
  if (header === "") return ANONYMOUS;
  if (!/^[A-Za-z0-9_+/-]*={0,2}$/.test(header)) throw invalid("bad base64");
  let json: unknown;
  try {
    // Node reads both alphabets.
    json = JSON.parse(Buffer.from(header, "base64").toString("utf8"));
  } catch {
    throw invalid("not JSON");
  }
  return credentialsOf(json);
}

/**
 * Reads AuthConfig of the Engine API.
 * @throws {InvalidParameter} a field is of a wrong type
 */
export function credentialsOf(authConfig: unknown): Credentials {
  const parsed = AuthConfig.safeParse(authConfig ?? {});
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw invalid(`${issue?.path.join(".") ?? ""}: ${issue?.message ?? ""}`);
  }
  const { auth, identitytoken, registrytoken } = parsed.data;
  let { username, password } = parsed.data;
  if (username === "" && auth !== "") {
    const pair = Buffer.from(auth, "base64").toString("utf8");
    const colon = pair.indexOf(":");
    if (colon < 0) throw invalid("auth: no user name and password");
    username = pair.slice(0, colon);
    password = pair.slice(colon + 1).replace(/\0+$/, "");
  }
  return {
    username,
    password,
    identityToken: identitytoken,
    registryToken: registrytoken,
  };
}

function invalid(reason: string): InvalidParameter {
  return new InvalidParameter(`invalid X-Registry-Auth header: ${reason}`);
}
