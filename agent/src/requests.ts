/** Requests as they come over the channel: text to something with the shape the operations expect. */
import type { OperationName, Request } from "../../protocol/index.js";
import { Failure } from "./failure.js";

type Shape = {
  [field: string]: "number" | "string" | "boolean" | "array" | "object";
};

/** The fields every operation needs; what is optional is checked where it is used. */
const SHAPES: { [Op in OperationName]: Shape } = {
  hello: {},
  setup: {
    time: "number",
    entropy: "string",
    hostname: "string",
    domainname: "string",
    machineId: "string",
    network: "object",
    rootfs: "object",
    mounts: "array",
    files: "array",
    limits: "object",
    sysctls: "object",
    shmSize: "number",
    privileged: "boolean",
    maskedPaths: "array",
    readonlyPaths: "array",
  },
  reset: {},
  furnish: {
    rootfs: "object",
    paths: "array",
    maskedPaths: "array",
    readonlyPaths: "array",
    capabilities: "array",
    program: "object",
  },
  load: { program: "object" },
  wake: { time: "number", entropy: "string" },
  spawn: {
    process: "number",
    args: "array",
    env: "array",
    cwd: "string",
    user: "string",
    groups: "array",
    stdin: "boolean",
    capabilities: "array",
    noNewPrivileges: "boolean",
    rlimits: "array",
    oomScoreAdj: "number",
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

/** Arrays that hold nothing but strings. */
const STRING_ARRAYS = new Set([
  "args",
  "env",
  "groups",
  "paths",
  "capabilities",
  "maskedPaths",
  "readonlyPaths",
]);

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
  if (!Object.prototype.hasOwnProperty.call(SHAPES, op))
    throw new Failure("invalid", `unknown operation ${JSON.stringify(op)}`);
  if (typeof args !== "object" || args === null)
    throw new Failure("invalid", "args: an object is expected");
  const shape = SHAPES[op as OperationName];
  for (const field of Object.keys(shape)) {
    const value = (args as Record<string, unknown>)[field];
    if (typeOf(value) !== shape[field])
      throw new Failure("invalid", `${field}: ${shape[field]} is expected`);
    if (STRING_ARRAYS.has(field) && !areStrings(value as unknown[]))
      throw new Failure("invalid", `${field}: strings are expected`);
  }
  return { id, op, args } as Request;
}

function areStrings(values: unknown[]): boolean {
  for (const value of values) if (typeof value !== "string") return false;
  return true;
}

function typeOf(value: unknown): string {
  if (Array.isArray(value)) return "array";
  if (value === null) return "null";
  return typeof value;
}
