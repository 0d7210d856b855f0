/** Words of an instruction: quoting, escapes and variables (moby, dockerfile/shell). */
import { InvalidParameter } from "../errors.js";

export type Variables = ReadonlyMap<string, string>;

/**
 * Replaces variables and takes quotes away: the value of one word.
 * @throws {InvalidParameter} a quote or brace is not closed, or `${X:?}` found nothing
 */
export function expand(
  text: string,
  variables: Variables,
  escape: string,
): string {
  return new Expander(text, variables, escape).all();
}

/** Words of a line, variables replaced; a variable's blanks make no new words. */
export function expandWords(
  text: string,
  variables: Variables,
  escape: string,
): string[] {
  return splitWords(text, escape)
    .map((word) => expand(word, variables, escape))
    .filter((word) => word !== "");
}

/** Words apart by blanks outside of quotes; quotes and escapes stay. */
export function splitWords(text: string, escape: string): string[] {
  const words: string[] = [];
  let word = "";
  let quote = "";
  for (let i = 0; i < text.length; i++) {
    const char = text.charAt(i);
    if (quote === "" && /\s/.test(char)) {
      if (word !== "") words.push(word);
      word = "";
      continue;
    }
    if (char === escape && quote !== "'" && i + 1 < text.length) {
      word += char + text.charAt(++i);
      continue;
    }
    if (quote === "" && (char === '"' || char === "'")) quote = char;
    else if (char === quote) quote = "";
    word += char;
  }
  if (word !== "") words.push(word);
  return words;
}

/**
 * Pairs of ENV and LABEL: `NAME=value …`, or the old `NAME the rest`.
 * @throws {InvalidParameter}
 */
export function parsePairs(
  keyword: string,
  text: string,
  escape: string,
): [name: string, value: string][] {
  const words = splitWords(text, escape);
  const [first = ""] = words;
  if (!first.includes("=")) {
    const match = /^(\S+)\s+([\s\S]+)$/.exec(text);
    if (!match) {
      throw new InvalidParameter(`${keyword} must have two arguments`);
    }
    return [[match[1] ?? "", match[2] ?? ""]];
  }
  return words.map((word) => {
    const equals = word.indexOf("=");
    if (equals < 0) {
      throw new InvalidParameter(
        `Syntax error - can't find = in ${JSON.stringify(word)}. Must be of the form: name=value`,
      );
    }
    if (equals === 0) {
      throw new InvalidParameter(`${keyword} names can not be blank`);
    }
    return [word.slice(0, equals), word.slice(equals + 1)];
  });
}

const NAME = /^(?:[A-Za-z_][A-Za-z0-9_]*|[0-9]|[@*#])/;

class Expander {
  #at = 0;

  constructor(
    private readonly text: string,
    private readonly variables: Variables,
    private readonly escape: string,
  ) {}

  all(): string {
    return this.#until("");
  }

  /** Up to an unquoted `end`, which is taken; "" for the end of the text. */
  #until(end: string): string {
    let result = "";
    while (this.#at < this.text.length) {
      const char = this.text.charAt(this.#at);
      if (end !== "" && char === end) {
        this.#at++;
        return result;
      }
      if (char === "'") result += this.#single();
      else if (char === '"') result += this.#double();
      else if (char === "$") result += this.#dollar();
      else if (char === this.escape) {
        this.#at++;
        if (this.#at < this.text.length) result += this.text.charAt(this.#at++);
      } else {
        result += char;
        this.#at++;
      }
    }
    if (end !== "") throw unfinished(`${end}`, this.text);
    return result;
  }

  #single(): string {
    const end = this.text.indexOf("'", this.#at + 1);
    if (end < 0) throw unfinished("'", this.text);
    const inner = this.text.slice(this.#at + 1, end);
    this.#at = end + 1;
    return inner;
  }

  #double(): string {
    let result = "";
    this.#at++;
    while (this.#at < this.text.length) {
      const char = this.text.charAt(this.#at);
      if (char === '"') {
        this.#at++;
        return result;
      }
      if (char === "$") {
        result += this.#dollar();
        continue;
      }
      this.#at++;
      const next = this.text.charAt(this.#at);
      if (char === this.escape && ['"', "$", this.escape].includes(next)) {
        result += next;
        this.#at++;
      } else {
        result += char;
      }
    }
    throw unfinished('"', this.text);
  }

  #dollar(): string {
    this.#at++;
    if (this.text.charAt(this.#at) !== "{") {
      const name = this.#name();
      return name === undefined ? "$" : (this.variables.get(name) ?? "");
    }
    this.#at++;
    const name = this.#name();
    if (name === undefined) throw unfinished("${", this.text);
    const value = this.variables.get(name);
    const match = /^(:?[-+?])/.exec(this.text.slice(this.#at));
    if (!match) {
      if (this.text.charAt(this.#at++) !== "}")
        throw new InvalidParameter(
          `unsupported modifier in substitution: ${JSON.stringify(this.text)}`,
        );
      return value ?? "";
    }
    const operator = match[1] ?? "";
    this.#at += operator.length;
    const word = this.#until("}");
    // With a colon, what is empty counts as not set.
    const isSet = operator.startsWith(":")
      ? Boolean(value)
      : value !== undefined;
    if (operator.endsWith("+")) return isSet ? word : "";
    if (isSet) return value ?? "";
    if (operator.endsWith("-")) return word;
    throw new InvalidParameter(
      `${name}: ${word || "is not allowed to be unset"}`,
    );
  }

  #name(): string | undefined {
    const name = NAME.exec(this.text.slice(this.#at))?.[0];
    this.#at += name?.length ?? 0;
    return name;
  }
}

function unfinished(what: string, text: string): InvalidParameter {
  return new InvalidParameter(
    `failed to process ${JSON.stringify(text)}: unexpected end of statement while looking for matching ${what}`,
  );
}
