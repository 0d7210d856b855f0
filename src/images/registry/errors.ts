import { NotFound, SystemError, type HullError } from "../../errors.js";
import type { Reference } from "../reference.js";

/** An error of the distribution API ("code: message", as Docker prints it), or of the way to it. */
export class RegistryError extends Error {
  constructor(
    /** Upper-case code of the distribution specification, "" where there is none. */
    readonly code: string,
    message: string,
    /** HTTP status, 0 when there was no answer. */
    readonly status: number = 0,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** Default messages of the codes, for registries that send none. */
const MESSAGES: Readonly<Record<string, string>> = {
  UNAUTHORIZED: "authentication required",
  DENIED: "requested access to the resource is denied",
  MANIFEST_UNKNOWN: "manifest unknown",
  NAME_UNKNOWN: "repository name not known to registry",
  BLOB_UNKNOWN: "blob unknown to registry",
  TOOMANYREQUESTS: "too many requests",
  UNAVAILABLE: "service unavailable",
  UNSUPPORTED: "The operation is unsupported.",
};

/** An error with its code and the registry's own message, or the code's usual one. */
export function codedError(
  code: string,
  message: string | undefined,
  status: number,
): RegistryError {
  const text =
    message === undefined || message === ""
      ? (MESSAGES[code] ?? "unknown error")
      : message;
  const name = code.toLowerCase().replaceAll("_", " ");
  return new RegistryError(code, `${name}: ${text}`, status);
}

/** Reads an error answer of a registry. @param body its first bytes */
export function errorFromAnswer(
  status: number,
  body: string,
  challenge: { scheme: string; parameters: Map<string, string> } | undefined,
): RegistryError {
  if (status < 400 || status >= 500) {
    return new RegistryError(
      "",
      `received unexpected HTTP status: ${status}`,
      status,
    );
  }
  // RFC 6750, section 3: the reason of a refused token stands in the challenge.
  if (challenge?.scheme === "bearer") {
    const reason = challenge.parameters.get("error");
    const description = challenge.parameters.get("error_description");
    if (reason === "invalid_token") {
      return codedError("UNAUTHORIZED", description, status);
    }
    if (reason === "insufficient_scope") {
      return codedError("DENIED", description, status);
    }
  }
  const [first] = parseErrors(body);
  if (first !== undefined) return codedError(first.code, first.message, status);
  if (status === 401) return codedError("UNAUTHORIZED", undefined, status);
  if (status === 429) return codedError("TOOMANYREQUESTS", undefined, status);
  return new RegistryError(
    "",
    `error parsing HTTP ${status} response body: ${JSON.stringify(body.slice(0, 200))}`,
    status,
  );
}

function parseErrors(body: string): { code: string; message?: string }[] {
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch {
    return [];
  }
  const list: unknown =
    typeof json === "object" && json !== null && "errors" in json
      ? json.errors
      : undefined;
  if (!Array.isArray(list)) return [];
  return list.flatMap((entry: unknown) => {
    if (typeof entry !== "object" || entry === null) return [];
    const { code, message } = entry as Record<string, unknown>;
    if (typeof code !== "string" || code === "") return [];
    return [
      {
        code: code.slice(0, 100),
        ...(typeof message === "string"
          ? { message: message.slice(0, 1000) }
          : {}),
      },
    ];
  });
}

/** A registry's error about an image, as `docker pull` tells it. */
export function pullError(error: unknown, reference: Reference): Error {
  if (!(error instanceof RegistryError)) return error as Error;
  const { message } = error;
  switch (error.code) {
    case "DENIED":
      return new NotFound(
        `pull access denied for ${reference.familiarName}, repository does not exist or may require 'docker login': ${message}`,
        { cause: error },
      );
    case "MANIFEST_UNKNOWN":
      return new NotFound(
        `manifest for ${reference.familiar} not found: ${message}`,
        { cause: error },
      );
    case "NAME_UNKNOWN":
      return new NotFound(
        `repository ${reference.familiarName} not found: ${message}`,
        { cause: error },
      );
    default:
      return new SystemError(message, { cause: error }) satisfies HullError;
  }
}

/** A request as errors name it: `Get "https://…"`. */
export function requestLine(method: string, url: URL): string {
  const verb = method.charAt(0) + method.slice(1).toLowerCase();
  return `${verb} "${url.href}"`;
}

/** What went wrong before there was an answer, in the words Docker's users know. */
export function connectionError(
  method: string,
  url: URL,
  error: unknown,
): RegistryError {
  return new RegistryError(
    "",
    `${requestLine(method, url)}: ${reasonOf(url, innermost(error))}`,
    0,
    { cause: error },
  );
}

interface NodeError extends Error {
  code?: string;
  address?: string;
  port?: number;
  reason?: string;
}

function innermost(error: unknown): NodeError {
  const inner: unknown =
    error instanceof AggregateError ? error.errors[0] : error;
  return inner instanceof Error ? inner : new Error(String(inner));
}

/** The server does not speak TLS: OpenSSL stumbles over the plain answer. */
export function isPlainAnswer(error: unknown): boolean {
  const { code = "" } = innermost(error);
  return (
    code === "EPROTO" ||
    code === "ERR_SSL_WRONG_VERSION_NUMBER" ||
    code === "ERR_SSL_PACKET_LENGTH_TOO_LONG" ||
    code === "ERR_SSL_TLSV1_ALERT_INTERNAL_ERROR"
  );
}

function reasonOf(url: URL, error: NodeError): string {
  const { code = "" } = error;
  const port =
    url.port === "" ? (url.protocol === "https:" ? 443 : 80) : url.port;
  const at = `dial tcp ${error.address ?? url.hostname}:${error.port ?? port}: connect:`;
  if (isPlainAnswer(error)) {
    return "http: server gave HTTP response to HTTPS client";
  }
  switch (code) {
    case "ECONNREFUSED":
      return `${at} connection refused`;
    case "EHOSTUNREACH":
      return `${at} no route to host`;
    case "ENETUNREACH":
      return `${at} network is unreachable`;
    case "ENOTFOUND":
      return `dial tcp: lookup ${url.hostname}: no such host`;
    case "EAI_AGAIN":
      return `dial tcp: lookup ${url.hostname}: Temporary failure in name resolution`;
    case "UND_ERR_CONNECT_TIMEOUT":
      return `dial tcp ${url.hostname}:${port}: i/o timeout`;
    case "UND_ERR_HEADERS_TIMEOUT":
    case "UND_ERR_BODY_TIMEOUT":
      return "net/http: timeout awaiting response";
    case "ECONNRESET":
      return "read: connection reset by peer";
    case "UND_ERR_SOCKET":
      return error.message === "other side closed" ? "EOF" : error.message;
    case "CERT_HAS_EXPIRED":
    case "CERT_NOT_YET_VALID":
      return "tls: failed to verify certificate: x509: certificate has expired or is not yet valid";
    case "ERR_TLS_CERT_ALTNAME_INVALID":
      return `tls: failed to verify certificate: x509: ${error.reason ?? error.message}`;
    case "DEPTH_ZERO_SELF_SIGNED_CERT":
    case "SELF_SIGNED_CERT_IN_CHAIN":
    case "UNABLE_TO_VERIFY_LEAF_SIGNATURE":
    case "UNABLE_TO_GET_ISSUER_CERT":
    case "UNABLE_TO_GET_ISSUER_CERT_LOCALLY":
      return "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    default:
      return error.message;
  }
}
