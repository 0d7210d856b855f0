/**
 * Dockerfiles as the Engine's classic builder reads them (moby, dockerfile/parser). Our own: the one
 * library in npm that is kept up (dockerfile-ast, made for editors) drops the blanks in a JSON form's
 * strings and keeps comments inside of continued lines.
 */
import { InvalidParameter } from "../errors.js";

export interface Instruction {
  /** In capital letters. */
  keyword: string;
  /** In their order; "" for one without value. */
  flags: [name: string, value: string][];
  /** What follows the flags, lines joined. */
  rest: string;
  /** The JSON form, where it is one. */
  json: string[] | undefined;
  /** Where it begins, from 1. */
  line: number;
  /** As the Engine shows it. */
  original: string;
}

export interface Dockerfile {
  instructions: Instruction[];
  /** The escape character. */
  escape: string;
}

const KEYWORDS = new Set(
  (
    "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL " +
    "STOPSIGNAL USER VOLUME WORKDIR"
  ).split(" "),
);
const WITH_FLAGS = new Set(["ADD", "COPY", "FROM", "HEALTHCHECK", "RUN"]);
const WITH_JSON = new Set([
  ..."ADD CMD COPY ENTRYPOINT RUN SHELL VOLUME HEALTHCHECK".split(" "),
]);
const MAX_DOCKERFILE = 4 * 1024 * 1024;

/** @throws {InvalidParameter} with the line that is wrong */
export function parseDockerfile(text: string): Dockerfile {
  if (text.length > MAX_DOCKERFILE) {
    throw new InvalidParameter("dockerfile parse error: the file is too long");
  }
  const lines = text.replace(/^\uFEFF/, "").split(/\r?\n/);
  const escape = escapeOf(lines);
  const continued =
    escape === "\\" ? /(?:^|[^\\])\\[ \t]*$/ : /(?:^|[^`])`[ \t]*$/;
  const instructions: Instruction[] = [];
  let pending: { text: string; line: number } | undefined;
  lines.forEach((line, index) => {
    if (/^\s*#/.test(line)) return;
    if (pending && line.trim() === "") return;
    const started = pending ?? { text: "", line: index + 1 };
    const own = pending ? line : line.trimStart();
    if (continued.test(own) && index < lines.length - 1) {
      pending = {
        ...started,
        text: started.text + own.replace(/.[ \t]*$/, ""),
      };
      return;
    }
    pending = undefined;
    add(started.text + own, started.line);
  });
  if (pending) add(pending.text, pending.line);
  if (instructions.length === 0) {
    throw new InvalidParameter("file with no instructions");
  }
  return { instructions, escape };

  function add(whole: string, line: number): void {
    if (whole.trim() !== "") instructions.push(parseInstruction(whole, line));
  }
}

/** @throws {InvalidParameter} naming the line */
export function parseInstruction(whole: string, line: number): Instruction {
  const trimmed = whole.trim();
  const [, word = "", after = ""] = /^(\S+)\s*([\s\S]*)$/.exec(trimmed) ?? [];
  const keyword = word.toUpperCase();
  if (!KEYWORDS.has(keyword)) {
    throw new InvalidParameter(
      `dockerfile parse error on line ${line}: unknown instruction: ${word}`,
    );
  }
  const flags: [string, string][] = [];
  let rest = after;
  if (WITH_FLAGS.has(keyword)) {
    for (let match; (match = /^--([^\s=]*)(?:=(\S*))?(?:\s+|$)/.exec(rest));) {
      rest = rest.slice(match[0].length);
      if (match[1] === "") break;
      flags.push([match[1] ?? "", match[2] ?? ""]);
    }
  }
  if (/^(RUN|COPY|ADD)$/.test(keyword) && /(^|\s)<<-?["']?\w/.test(rest)) {
    throw new InvalidParameter(
      `dockerfile parse error on line ${line}: the here-document feature requires BuildKit, which hull does not have`,
    );
  }
  if (rest === "" && keyword !== "CMD" && keyword !== "ENTRYPOINT") {
    throw new InvalidParameter(
      keyword === "HEALTHCHECK" || keyword === "ONBUILD" || keyword === "FROM"
        ? `dockerfile parse error on line ${line}: ${keyword} requires at least one argument`
        : `dockerfile parse error on line ${line}: ${keyword} requires ${keyword === "WORKDIR" || keyword === "USER" || keyword === "STOPSIGNAL" ? "exactly" : "at least"} one argument`,
    );
  }
  return {
    keyword,
    flags,
    rest,
    json: WITH_JSON.has(keyword) ? jsonForm(rest) : undefined,
    line,
    original: [keyword, after].join(" ").trim(),
  };
}

/** A list of strings in JSON; undefined for anything else, which is a shell's form then. */
export function jsonForm(text: string): string[] | undefined {
  if (!text.trimStart().startsWith("[")) return undefined;
  try {
    const value = JSON.parse(text) as unknown;
    return Array.isArray(value) &&
      value.every((item) => typeof item === "string")
      ? value
      : undefined;
  } catch {
    return undefined;
  }
}

/** Directives stand before everything else. */
function escapeOf(lines: string[]): string {
  for (const line of lines) {
    const match = /^\s*#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(\S+)\s*$/.exec(line);
    if (!match) break;
    if (match[1]?.toLowerCase() !== "escape") continue;
    if (match[2] !== "\\" && match[2] !== "`") {
      throw new InvalidParameter(
        `dockerfile parse error: invalid ESCAPE '${match[2]}'. Must be ' or \\`,
      );
    }
    return match[2];
  }
  return "\\";
}
