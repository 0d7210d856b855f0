/**
 * The published specification of the Engine API (Swagger 2.0), as a judge of answers. It lies beside the
 * project, not in it.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Ajv, type ValidateFunction } from "ajv";
import { parse } from "yaml";
import type { Answer } from "./api.js";

const FILE = fileURLToPath(
  new URL("../../../../shared/engine-api/v1.51.yaml", import.meta.url),
);
const METHODS = ["get", "head", "post", "put", "delete"];

type Json = Record<string, unknown>;
interface Operation {
  parameters?: { name: string; in: string }[];
  responses: Record<string, { schema?: Json }>;
}
type Paths = Record<string, Record<string, Operation>>;
type Method = "GET" | "HEAD" | "POST" | "PUT" | "DELETE";

export class Spec {
  /** Operations that were asked for so far, as "GET /path", with those the daemon says it lacks. */
  readonly driven = new Set<string>();
  readonly missing = new Set<string>();
  /** What was wrong with the answers so far. */
  readonly problems: string[] = [];
  readonly #paths: Paths;
  readonly #ajv: Ajv;
  readonly #validators = new Map<string, ValidateFunction>();

  /** @returns undefined where the specification is not at hand */
  static load(): Spec | undefined {
    if (!existsSync(FILE)) return undefined;
    return new Spec(parse(readFileSync(FILE, "utf8")) as Json);
  }

  private constructor(document: Json) {
    this.#paths = document["paths"] as Paths;
    this.#ajv = new Ajv({
      strict: false,
      validateFormats: false,
      allErrors: true,
    });
    this.#ajv.addSchema(withNulls(document) as Json, "spec");
  }

  /** Every operation of the specification, as "GET /path". */
  get operations(): string[] {
    return Object.entries(this.#paths).flatMap(([path, operations]) =>
      METHODS.filter((method) => operations[method]).map(
        (method) => `${method.toUpperCase()} ${path}`,
      ),
    );
  }

  /** The names of an operation's query parameters, and whether it takes a body. */
  parameters(operation: string): { query: string[]; hasBody: boolean } {
    const [method = "", path = ""] = operation.split(" ");
    const all = this.#paths[path]?.[method.toLowerCase()]?.parameters ?? [];
    return {
      query: all.filter((one) => one.in === "query").map(({ name }) => name),
      hasBody: all.some((one) => one.in === "body"),
    };
  }

  /**
   * Notes what is wrong with an answer: a status the specification does not know, or a body that is not
   * of its schema.
   * @param path the template, e.g. "/containers/{id}/json"
   */
  check(method: Method, path: string, answer: Answer): void {
    const name = `${method} ${path}`;
    const operation = this.#paths[path]?.[method.toLowerCase()];
    assert.ok(operation, `the specification has no operation ${name}`);
    this.driven.add(name);
    const { status, json, text } = answer;
    if (status === 501) {
      this.missing.add(name);
      return;
    }
    const response = operation.responses[String(status)];
    if (!response) {
      this.problems.push(`${name} answered ${status}: ${text.slice(0, 500)}`);
      return;
    }
    if (!response.schema || method === "HEAD") return;
    if ((response.schema as { type?: string }).type === "string") return;
    const values = json === undefined ? lines(text, name) : [json];
    const validate = this.#validator(path, method, status);
    for (const value of values) {
      if (validate(withoutNulls(value))) continue;
      this.problems.push(
        `${name} answered ${status} with a body that is not of its schema: ` +
          this.#ajv.errorsText(validate.errors),
      );
    }
  }

  #validator(path: string, method: string, status: number): ValidateFunction {
    const steps = [path, method.toLowerCase(), "responses", status, "schema"];
    const pointer = steps.map((step) =>
      encodeURIComponent(
        String(step).replaceAll("~", "~0").replaceAll("/", "~1"),
      ),
    );
    const reference = `spec#/paths/${pointer.join("/")}`;
    const known = this.#validators.get(reference);
    if (known) return known;
    const made = this.#ajv.compile({ $ref: reference });
    this.#validators.set(reference, made);
    return made;
  }
}

/** A body of JSON values one after the other, as streams have them. */
function lines(text: string, name: string): unknown[] {
  try {
    return text
      .split(/\r?\n/)
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as unknown);
  } catch {
    assert.fail(`${name} answered what is no JSON: ${text.slice(0, 500)}`);
  }
}

/** Swagger 2.0 has no null; Docker's specification says `x-nullable`. */
function withNulls(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(withNulls);
  if (typeof node !== "object" || node === null) return node;
  const { "x-nullable": nullable, ...rest } = node as Json;
  const schema = Object.fromEntries(
    Object.entries(rest)
      // What they hold is no schema, and may look like one.
      .filter(([key]) => key !== "example" && key !== "examples")
      .map(([key, value]) => [key, withNulls(value)]),
  );
  return nullable === true ? { anyOf: [schema, { type: "null" }] } : schema;
}

/**
 * Go writes an empty list, map or pointer as null, and so does Docker's engine all over its answers, marked
 * in the specification or not; to its clients that is the same as a property that is not there.
 */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, inner]) => inner !== null)
      .map(([key, inner]) => [key, withoutNulls(inner)]),
  );
}
