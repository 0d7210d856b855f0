/** `docker images`: which images, and what of them. */
import { InvalidParameter } from "../errors.js";
import type { Filters } from "../filters.js";
import type { Reference } from "./reference.js";
import {
  createdMs,
  type ImageFacts,
  type ImageSummary,
  repoDigests,
  repoTags,
  sum,
} from "./views.js";

/** Filters of `GET /images/json`. */
export const LIST_FILTERS = [
  "dangling",
  "label",
  "label!",
  "before",
  "since",
  "reference",
  "until",
];

export interface ListOptions {
  filters: Filters;
  /** Work out what images share with others. */
  sharedSize: boolean;
  /** Milliseconds since the epoch, of the `until` filter; Infinity without. */
  until: number;
  /** Times of the images the `before` and `since` filters name. */
  before: number | undefined;
  since: number | undefined;
  /** Containers of an image; not asked when undefined. */
  containers?: (id: string) => number;
}

/** @throws {InvalidParameter} a filter has an impossible value */
export function listImages(
  images: readonly ImageFacts[],
  options: ListOptions,
): ImageSummary[] {
  const { filters } = options;
  filters.validate(LIST_FILTERS);
  const dangling = filters.boolean("dangling", false);
  const patterns = filters.get("reference").map(referencePattern);
  const summaries: ImageSummary[] = [];
  for (const image of images) {
    if (!matches(image, options)) continue;
    const references = filters.has("reference")
      ? image.references.filter((reference) =>
          patterns.some((pattern) => pattern(reference)),
        )
      : image.references;
    if (references.length === 0) {
      if (filters.has("dangling") && !dangling) continue;
      if (filters.has("reference")) continue;
    } else if (dangling && repoTags(references).length > 0) continue;
    summaries.push({
      Id: image.id,
      ParentId: "",
      RepoTags: repoTags(references),
      RepoDigests: repoDigests(references),
      Created: Math.floor(createdMs(image.config) / 1000),
      Size: sum(image.layerSizes),
      SharedSize: options.sharedSize ? sharedSize(image, images) : -1,
      Labels: image.config.config?.Labels ?? {},
      Containers: options.containers?.(image.id) ?? -1,
    });
  }
  return summaries.sort((a, b) => b.Created - a.Created);
}

function matches(
  { config }: ImageFacts,
  { filters, before, since, until }: ListOptions,
): boolean {
  const created = createdMs(config);
  const labels = config.config?.Labels ?? {};
  if (before !== undefined && created >= before) return false;
  if (since !== undefined && created <= since) return false;
  if (created >= until) return false;
  return (
    filters.matchPairs("label", labels) &&
    (!filters.has("label!") || !filters.matchPairs("label!", labels))
  );
}

/** Bytes of the layers, counted from the lowest, that another image begins with too. */
function sharedSize(image: ImageFacts, images: readonly ImageFacts[]): number {
  const own = image.config.rootfs.diff_ids;
  let shared = 0;
  for (const other of images) {
    if (other.id === image.id) continue;
    const theirs = other.config.rootfs.diff_ids;
    let common = 0;
    while (common < own.length && own[common] === theirs[common]) common++;
    shared = Math.max(shared, common);
  }
  return sum(image.layerSizes.slice(0, shared));
}

/** Longest pattern that is tried: patterns come from clients. */
const MAX_PATTERN = 1024;

/**
 * A shell pattern for references: matched against the familiar name, with and without tag.
 * @throws {InvalidParameter} malformed
 */
export function referencePattern(
  pattern: string,
): (reference: Reference) => boolean {
  const parts = compile(pattern);
  return (reference) =>
    [reference.familiar, reference.familiarName].some((name) =>
      glob(parts, name),
    );
}

type Part = "*" | ((character: string) => boolean);

function compile(pattern: string): Part[] {
  const malformed = (): InvalidParameter =>
    new InvalidParameter(`syntax error in pattern: ${JSON.stringify(pattern)}`);
  if (pattern.length > MAX_PATTERN) throw malformed();
  const parts: Part[] = [];
  for (let i = 0; i < pattern.length; i++) {
    const character = pattern[i] as string;
    if (character === "*") {
      if (parts.at(-1) !== "*") parts.push("*");
    } else if (character === "?") parts.push((other) => other !== "/");
    else if (character === "[") {
      const end = pattern.indexOf("]", i + 2);
      if (end < 0) throw malformed();
      parts.push(characterClass(pattern.slice(i + 1, end)));
      i = end;
    } else {
      const literal = character === "\\" ? pattern[++i] : character;
      if (literal === undefined) throw malformed();
      parts.push((other) => other === literal);
    }
  }
  return parts;
}

function characterClass(body: string): (character: string) => boolean {
  const negated = body.startsWith("^");
  const set = negated ? body.slice(1) : body;
  const ranges: [string, string][] = [];
  for (let i = 0; i < set.length; i++) {
    const low = set[i] as string;
    if (set[i + 1] === "-" && i + 2 < set.length) {
      ranges.push([low, set[i + 2] as string]);
      i += 2;
    } else ranges.push([low, low]);
  }
  return (character) =>
    character !== "/" &&
    ranges.some(([low, high]) => low <= character && character <= high) !==
      negated;
}

/** Matches a whole name; "*" stops at slashes. Time grows with the product of the lengths. */
function glob(parts: readonly Part[], name: string): boolean {
  let reachable = new Set([0]);
  const close = (positions: Set<number>): Set<number> => {
    for (const position of positions) {
      if (parts[position] === "*") positions.add(position + 1);
    }
    return positions;
  };
  close(reachable);
  for (const character of name) {
    const next = new Set<number>();
    for (const position of reachable) {
      const part = parts[position];
      if (part === undefined) continue;
      if (part === "*") {
        if (character !== "/") next.add(position);
      } else if (part(character)) next.add(position + 1);
    }
    reachable = close(next);
    if (reachable.size === 0) return false;
  }
  return reachable.has(parts.length);
}
