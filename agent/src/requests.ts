/** Requests as they come over the channel: text to something with the shape the operations expect. */
import type { OperationName, Request } from "../../protocol/index.js";
import { Failure } from "./failure.js";

type Kind = "number" | "string" | "boolean" | "array" | "strings" | "object";

/** What an operation's fields are; with "?" those that need not be there. */
type Shape = { [field: string]: Kind | `${Kind}?` };

const SHAPES: { [Op in OperationName]: Shape } = {
  hello: {},
  setup: {
    time: "number",
    entropy: "string?",
    hostname: "string",
    domainname: "string?",
    machineId: "string?",
    network: "object",
    rootfs: "object?",
    mounts: "array?",
    files: "array",
    limits: "object?",
    sysctls: "object?",
    shmSize: "number?",
    privileged: "boolean?",
    maskedPaths: "strings?",
    readonlyPaths: "strings?",
  },
  reset: {},
  furnish: { paths: "strings", program: "object" },
  load: { program: "object" },
  rouse: {},
  seed: { entropy: "string" },
  wake: { time: "number", entropy: "string" },
  spawn: {
    process: "number",
    args: "strings",
    env: "strings",
    cwd: "string?",
    user: "string?",
    groups: "strings?",
    tty: "object?",
    stdin: "boolean?",
    capabilities: "strings?",
    noNewPrivileges: "boolean?",
    rlimits: "array?",
    oomScoreAdj: "number?",
    init: "boolean?",
  },
  signal: { process: "number", signal: "number" },
  resize: { process: "number", rows: "number", columns: "number" },
  release: { process: "number" },
  processes: {},
  files: { process: "number", task: "object" },
  freeze: { frozen: "boolean" },
  network: { add: "array", remove: "array", routes: "array", files: "array" },
  usage: {},
  limit: { limits: "object" },
  shutdown: {},
};

/** A request's parts; `args` has not been checked yet. */
export interface RawRequest {
  id: number;
  op: string;
  args: unknown;
}

/** @returns undefined for what is no request at all, so that it cannot even be answered */
export function parseRequest(text: string): RawRequest | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { id, op, args } = value as Partial<RawRequest>;
  if (typeof id !== "number" || typeof op !== "string") return undefined;
  return { id, op, args };
}

/** @throws {Failure} `invalid`, naming the field */
export function checkRequest({ id, op, args }: RawRequest): Request {
  const checks = checksOf(op);
  if (!checks)
    throw new Failure("invalid", `unknown operation ${JSON.stringify(op)}`);
  if (typeof args !== "object" || args === null)
    throw new Failure("invalid", "args: an object is expected");
  const { fields, kinds, required } = checks;
  for (let i = 0; i < fields.length; i++) {
    const value = (args as Record<string, unknown>)[fields[i] as string];
    if (value === undefined && i >= required) continue;
    const kind = kinds[i] as Kind;
    if (isOfKind(value, kind)) continue;
    const wanted = kind === "strings" ? "strings are" : `${kind} is`;
    throw new Failure("invalid", `${fields[i]}: ${wanted} expected`);
  }
  return { id, op, args } as Request;
}

/** A shape as lists, which are gone through in far less time. */
interface Checks {
  readonly fields: readonly string[];
  readonly kinds: readonly Kind[];
  /** So many of them, the first ones, have to be there. */
  readonly required: number;
}

const known = new Map<string, Checks>();

/** @returns undefined for what is no operation */
function checksOf(op: string): Checks | undefined {
  const checks = known.get(op);
  if (checks || !Object.prototype.hasOwnProperty.call(SHAPES, op))
    return checks;
  const entries = Object.entries(SHAPES[op as OperationName]);
  const needed = entries.filter(([, kind]) => !kind.endsWith("?"));
  const others = entries.filter(([, kind]) => kind.endsWith("?"));
  const all = [...needed, ...others];
  const made = {
    fields: all.map(([field]) => field),
    kinds: all.map(([, kind]) => kind.replace("?", "") as Kind),
    required: needed.length,
  };
  known.set(op, made);
  return made;
}

function isOfKind(value: unknown, kind: Kind): boolean {
  if (typeof value !== "object") return typeof value === kind;
  if (kind === "array") return Array.isArray(value);
  if (kind === "strings") return Array.isArray(value) && areStrings(value);
  return kind === "object" && value !== null && !Array.isArray(value);
}

function areStrings(values: unknown[]): boolean {
  for (const value of values) if (typeof value !== "string") return false;
  return true;
}
