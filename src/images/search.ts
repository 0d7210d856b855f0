/** `docker search`: what an index has, and the filters that the Engine itself applies. */
import { InvalidParameter, notANumber } from "../errors.js";
import type { Filters } from "../filters.js";
import type { IndexEntry } from "./registry/search.js";

export const SEARCH_FILTERS = ["is-automated", "is-official", "stars"];

/** An entry of the Engine API's answer. */
export interface SearchResult extends IndexEntry {
  is_automated: boolean;
}

/**
 * Prepares the filters of a search before anybody is asked.
 * @returns what to keep; undefined where nothing can be found: automated builds are no more
 * @throws {InvalidParameter} a value that cannot be, in the Engine's words
 */
export function searchFilter(
  filters: Filters,
): ((entry: IndexEntry) => boolean) | undefined {
  if (filters.boolean("is-automated", false)) return undefined;
  const official = filters.has("is-official")
    ? filters.boolean("is-official", false)
    : undefined;
  const stars = filters.get("stars").map((value) => {
    if (!/^[+-]?\d+$/.test(value)) {
      throw new InvalidParameter(
        `invalid filter 'stars=${value}': ${notANumber(value)}`,
      );
    }
    return Number(value);
  });
  const least = Math.max(0, ...stars);
  return ({ is_official, star_count }) =>
    (official === undefined || is_official === official) &&
    (stars.length === 0 || star_count >= least);
}

/** As the Engine answers: nothing is automated any more, whatever the index says. */
export function searchResult(entry: IndexEntry): SearchResult {
  return { ...entry, is_automated: false };
}
