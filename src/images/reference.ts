/**
 * Image references as Docker reads them: the grammar and the normalisation of
 * github.com/distribution/reference, with its error texts.
 */
import { InvalidParameter } from "../errors.js";

const DEFAULT_DOMAIN = "docker.io";
const LEGACY_DEFAULT_DOMAIN = "index.docker.io";
const OFFICIAL_PREFIX = "library/";
/** The longest repository path. */
const MAX_NAME_LENGTH = 255;
/** No reference is longer; keeps the regular expressions' work bounded. */
const MAX_REFERENCE_LENGTH = 1024;

const DOMAIN_LABEL = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
const HOST = `(?:${DOMAIN_LABEL}(?:\\.${DOMAIN_LABEL})*|\\[(?:[a-fA-F0-9:]+)\\])`;
const DOMAIN = `${HOST}(?::[0-9]+)?`;
const PATH_PART = "[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*";
const PATH = `${PATH_PART}(?:/${PATH_PART})*`;
const TAG = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}";
const DIGEST =
  "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";

const REFERENCE = new RegExp(
  `^(?:(${DOMAIN})/)?(${PATH})(?::(${TAG}))?(?:@(${DIGEST}))?$`,
);
const TAG_ONLY = new RegExp(`^${TAG}$`);
const DIGEST_ONLY = new RegExp(`^${DIGEST}$`);
const IDENTIFIER = /^[a-f0-9]{64}$/;
/** Hexadecimal digits of the algorithms the grammar knows. */
const ALGORITHMS: Readonly<Record<string, number>> = {
  sha256: 64,
  sha384: 96,
  sha512: 128,
};

/** A repository, and perhaps a tag and a digest, fully spelt out. */
export class Reference {
  constructor(
    /** Registry host with its port: "docker.io", "127.0.0.1:5000". */
    readonly domain: string,
    /** Repository at that registry: "library/busybox". */
    readonly path: string,
    readonly tag?: string,
    readonly digest?: string,
  ) {}

  /** "docker.io/library/busybox" */
  get name(): string {
    return `${this.domain}/${this.path}`;
  }

  /** As people write it: "busybox", "user/app", "127.0.0.1:5000/app". */
  get familiarName(): string {
    if (this.domain !== DEFAULT_DOMAIN) return this.name;
    const { path } = this;
    const official = path.startsWith(OFFICIAL_PREFIX)
      ? path.slice(OFFICIAL_PREFIX.length)
      : path;
    return official.includes("/") ? path : official;
  }

  /** The familiar name with tag and digest. */
  get familiar(): string {
    return this.familiarName + this.#suffix();
  }

  /** No tag and no digest. */
  get isNameOnly(): boolean {
    return this.tag === undefined && this.digest === undefined;
  }

  /** The same with ":latest" when it has neither tag nor digest. */
  withDefaultTag(): Reference {
    return this.isNameOnly ? this.withTag("latest") : this;
  }

  /**
   * The same repository with that tag and no digest.
   * @throws {InvalidParameter} "invalid tag format"
   */
  withTag(tag: string): Reference {
    if (!TAG_ONLY.test(tag)) throw new InvalidParameter("invalid tag format");
    return new Reference(this.domain, this.path, tag);
  }

  /**
   * The same repository with that digest and no tag.
   * @throws {InvalidParameter} not a digest
   */
  withDigest(digest: string): Reference {
    checkDigest(digest);
    return new Reference(this.domain, this.path, undefined, digest);
  }

  /** The canonical form with tag and digest. */
  toString(): string {
    return this.name + this.#suffix();
  }

  #suffix(): string {
    return (
      (this.tag === undefined ? "" : `:${this.tag}`) +
      (this.digest === undefined ? "" : `@${this.digest}`)
    );
  }
}

/**
 * Reads a reference to a repository, filling in Docker's defaults for the registry.
 * @throws {InvalidParameter} in the words of distribution/reference
 */
export function parseReference(text: string): Reference {
  if (IDENTIFIER.test(text)) {
    throw new InvalidParameter(
      `invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`,
    );
  }
  if (text.length > MAX_REFERENCE_LENGTH) throw invalidFormat();
  const [domain, remainder] = splitDomain(text);
  const colon = remainder.indexOf(":");
  const remote = colon < 0 ? remainder : remainder.slice(0, colon);
  if (remote.toLowerCase() !== remote) {
    throw new InvalidParameter(
      `invalid reference format: repository name (${remote}) must be lowercase`,
    );
  }
  const match = REFERENCE.exec(`${domain}/${remainder}`);
  // The domain given must stay the domain, and not become a part of the path.
  if (match?.[1] !== domain) throw invalidFormat();
  const [, , path = "", tag, digest] = match;
  if (path.length > MAX_NAME_LENGTH) {
    throw new InvalidParameter(
      `repository name must not be more than ${MAX_NAME_LENGTH} characters`,
    );
  }
  if (digest !== undefined) checkDigest(digest);
  return new Reference(domain, path, tag, digest);
}

/** What a user may call an image by. */
export type AnyReference =
  { kind: "digest"; digest: string } | { kind: "named"; reference: Reference };

/**
 * Reads a reference that may also be a whole image ID, with or without "sha256:".
 * @throws {InvalidParameter} neither
 */
export function parseAnyReference(text: string): AnyReference {
  if (IDENTIFIER.test(text)) {
    return { kind: "digest", digest: `sha256:${text}` };
  }
  if (DIGEST_ONLY.test(text) && isKnownDigest(text)) {
    return { kind: "digest", digest: text };
  }
  return { kind: "named", reference: parseReference(text) };
}

function splitDomain(text: string): [domain: string, remainder: string] {
  const slash = text.indexOf("/");
  if (slash < 0) return [DEFAULT_DOMAIN, OFFICIAL_PREFIX + text];
  const first = text.slice(0, slash);
  const rest = text.slice(slash + 1);
  let domain = DEFAULT_DOMAIN;
  let remainder = text;
  if (first === LEGACY_DEFAULT_DOMAIN) {
    remainder = rest;
  } else if (
    first === "localhost" ||
    /[.:]/.test(first) ||
    first.toLowerCase() !== first
  ) {
    domain = first;
    remainder = rest;
  }
  if (domain === DEFAULT_DOMAIN && !remainder.includes("/")) {
    remainder = OFFICIAL_PREFIX + remainder;
  }
  return [domain, remainder];
}

function isKnownDigest(digest: string): boolean {
  const [algorithm = "", hex = ""] = digest.split(":");
  return hex.length === ALGORITHMS[algorithm] && /^[a-f0-9]+$/.test(hex);
}

function checkDigest(digest: string): void {
  const [algorithm = "", hex = ""] = digest.split(":");
  if (!DIGEST_ONLY.test(digest)) {
    throw new InvalidParameter("invalid checksum digest format");
  }
  const length = Object.hasOwn(ALGORITHMS, algorithm)
    ? ALGORITHMS[algorithm]
    : undefined;
  if (length === undefined) {
    throw new InvalidParameter("unsupported digest algorithm");
  }
  if (hex.length !== length) {
    throw new InvalidParameter("invalid checksum digest length");
  }
  if (!isKnownDigest(digest)) {
    throw new InvalidParameter("invalid checksum digest format");
  }
}

function invalidFormat(): InvalidParameter {
  return new InvalidParameter("invalid reference format");
}
