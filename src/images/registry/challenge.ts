/** A challenge of a WWW-Authenticate header (RFC 9110, section 11.6.1). */
export interface Challenge {
  /** Lower-case. */
  scheme: string;
  /** By lower-case name. */
  parameters: Map<string, string>;
}

const TOKEN = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+";
const PARAMETER = new RegExp(
  `^\\s*(${TOKEN})\\s*=\\s*(?:"((?:[^"\\\\]|\\\\.)*)"|(${TOKEN}))`,
);
const SCHEME = new RegExp(`^\\s*(${TOKEN})(?:\\s+|\\s*,|$)`);
/** No registry needs a longer one. */
const MAX_LENGTH = 8192;

/** Reads the challenges of a header; what cannot be read is left out. */
export function parseChallenges(
  header: string | string[] | undefined,
): Challenge[] {
  const headers = header === undefined ? [] : [header].flat();
  return headers.flatMap((text) => parse(text.slice(0, MAX_LENGTH)));
}

function parse(header: string): Challenge[] {
  const challenges: Challenge[] = [];
  let rest = header;
  while (rest !== "") {
    rest = rest.replace(/^[\s,]+/, "");
    const parameter = PARAMETER.exec(rest);
    const current = challenges.at(-1);
    if (parameter !== null && current !== undefined) {
      const [whole, name = "", quoted, plain] = parameter;
      current.parameters.set(
        name.toLowerCase(),
        quoted?.replace(/\\(.)/g, "$1") ?? plain ?? "",
      );
      rest = rest.slice(whole.length);
      continue;
    }
    const scheme = SCHEME.exec(rest);
    if (scheme === null) break;
    challenges.push({
      scheme: (scheme[1] ?? "").toLowerCase(),
      parameters: new Map(),
    });
    rest = rest.slice(scheme[0].length);
  }
  return challenges;
}
