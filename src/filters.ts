import { InvalidParameter } from "./errors.js";

/**
 * The `filters` of the Engine API: a name with one or more wanted values. Matching follows the
 * Engine's own rules, so each list endpoint asks with the method the Engine uses for that name.
 */
export class Filters {
  readonly #fields: Map<string, Set<string>>;

  constructor(fields: Iterable<readonly [string, Iterable<string>]> = []) {
    this.#fields = new Map();
    for (const [name, values] of fields) {
      this.#fields.set(name, new Set(values));
    }
  }

  /** The wanted values of a name, empty when it is not filtered by. */
  get(name: string): string[] {
    return [...(this.#fields.get(name) ?? [])];
  }

  /** Whether anything is filtered by this name. */
  has(name: string): boolean {
    return this.#fields.has(name);
  }

  /** The names filtered by. */
  names(): string[] {
    return [...this.#fields.keys()];
  }

  /** Number of names filtered by. */
  get size(): number {
    return this.#fields.size;
  }

  /**
   * Refuses names an endpoint does not know.
   * @throws {InvalidParameter} "invalid filter 'NAME'"
   */
  validate(accepted: readonly string[]): void {
    for (const name of this.#fields.keys()) {
      if (!accepted.includes(name)) {
        throw new InvalidParameter(`invalid filter '${name}'`);
      }
    }
  }

  /**
   * The value of a yes-or-no filter such as `dangling`.
   * @throws {InvalidParameter} a value that is neither, or both at once
   */
  boolean(name: string, fallback: boolean): boolean {
    const values = this.#fields.get(name);
    if (values === undefined) return fallback;
    const yes = values.has("1") || values.has("true");
    const no = values.has("0") || values.has("false");
    if (yes === no) {
      throw new InvalidParameter(
        `invalid filter '${name}=[${[...values].join(" ")}]'`,
      );
    }
    return yes;
  }

  /** Not filtered by this name, or `source` is one of the wanted values. */
  exactMatch(name: string, source: string): boolean {
    const values = this.#fields.get(name);
    return values === undefined || values.size === 0 || values.has(source);
  }

  /** As exactMatch, where a wanted value may also be a prefix of `source`. */
  fuzzyMatch(name: string, source: string): boolean {
    if (this.exactMatch(name, source)) return true;
    return this.get(name).some((prefix) => source.startsWith(prefix));
  }

  /**
   * As exactMatch, where a wanted value may also occur anywhere in `source`. The Engine reads wanted
   * values as regular expressions here; what does not compile is looked for as plain text.
   */
  match(name: string, source: string): boolean {
    if (this.exactMatch(name, source)) return true;
    return this.get(name).some((pattern) => {
      // A client's pattern must not be able to keep the daemon busy: only short ones with few
      // repetitions are run as regular expressions.
      if (isTame(pattern)) {
        try {
          return new RegExp(pattern).test(source);
        } catch {
          // Not a pattern after all.
        }
      }
      return source.includes(pattern);
    });
  }

  /** Every wanted value is a key of `pairs` ("key"), with that value ("key=value"). */
  matchPairs(
    name: string,
    pairs: Readonly<Record<string, string>> | undefined,
  ): boolean {
    return this.get(name).every((wanted) => {
      const equals = wanted.indexOf("=");
      const key = equals < 0 ? wanted : wanted.slice(0, equals);
      if (pairs === undefined || !Object.hasOwn(pairs, key)) return false;
      return equals < 0 || pairs[key] === wanted.slice(equals + 1);
    });
  }
}

/** Whether a regular expression of a client ends in little time on any name. */
function isTame(pattern: string): boolean {
  return (
    pattern.length <= 256 &&
    /^[\w.\-/^$?*+|]*$/.test(pattern) &&
    (pattern.match(/[?*+]/g)?.length ?? 0) <= 3
  );
}
