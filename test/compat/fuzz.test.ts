/**
 * Nonsense for every operation: parameters and bodies that no client would send. Whatever comes, the answer
 * is the client's fault (4xx) or a success, never the daemon's (5xx), and the daemon stays what it was.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import fc from "fast-check";
import { api } from "./harness/api.js";
import { Daemon } from "./harness/daemon.js";
import { docker, dockerOk } from "./harness/docker.js";
import { busybox } from "./harness/environment.js";
import { residentMemory } from "./harness/memory.js";
import { Spec } from "./harness/spec.js";

/** Requests for each operation; `HULL_FUZZ_RUNS` asks for a longer search. */
const RUNS = Number(process.env["HULL_FUZZ_RUNS"] ?? 12);
/** Fixed, so that a failure is the same on the next run. */
const SEED = Number(process.env["HULL_FUZZ_SEED"] ?? 20_241_124);
/** What the daemon may have grown by at the end, in bytes: node frees late. */
const GROWTH = 256 * 1024 * 1024;
const NAME = "fuzzed";

const loaded = Spec.load();

describe(
  "nonsense gets a client's error",
  { skip: loaded ? false : "the specification is not beside the project" },
  () => {
    const spec = loaded as Spec;
    let pid = 0;
    let resident = 0;

    before(async () => {
      await dockerOk(["create", "--name", NAME, busybox(), "true"]);
      pid = Daemon.shared().pid;
      resident = residentMemory(pid);
    });
    after(async () => {
      await docker(["rm", "-f", NAME]);
    });

    for (const operation of spec.operations.filter(isFuzzed)) {
      test(operation, async () => {
        const [method = "", path = ""] = operation.split(" ");
        const { query, hasBody } = spec.parameters(operation);
        await fc.assert(
          fc.asyncProperty(
            pathOf(path),
            fc.dictionary(fc.constantFrom("x", ...query), text()),
            hasBody ? body() : fc.constant(undefined),
            async (target, given, content) => {
              const parameters = atHome(operation, given);
              const answer = await api(
                method,
                `/v1.51${target}?${new URLSearchParams(parameters).toString()}`,
                content,
              );
              const refused =
                answer.status < 500 ||
                // Not there, or not of this engine: see the conformance test.
                answer.status === 501 ||
                answer.status === 503 ||
                answer.text.includes("plugins are not supported");
              assert.ok(refused, `${answer.status}: ${answer.text}`);
              if (answer.status >= 400 && method !== "HEAD") {
                const { message } = answer.json as { message: unknown };
                assert.equal(typeof message, "string");
                assert.notEqual(message, "");
              }
            },
          ),
          { numRuns: RUNS, seed: SEED },
        );
      });
    }

    test("the daemon is the same as before, and has not grown", async () => {
      assert.equal(Daemon.shared().pid, pid);
      await Daemon.shared().ping();
      const grown = residentMemory(pid) - resident;
      assert.ok(grown < GROWTH, `${grown} bytes more than before`);
    });
  },
);

/**
 * Left out: what leads out of this host (no answer from there is the daemon's fault), what ends everything
 * others use, and streams without an end.
 */
function isFuzzed(operation: string): boolean {
  return ![
    "GET /events",
    "GET /containers/{id}/stats",
    "GET /distribution/{name}/json",
    "POST /images/create",
    "POST /images/{name}/push",
    "POST /auth",
    "GET /containers/{id}/attach/ws",
    "POST /containers/prune",
    "POST /images/prune",
    "POST /networks/prune",
    "POST /volumes/prune",
    "POST /build/prune",
    "DELETE /images/{name}",
  ].includes(operation);
}

/** What searches an index searches one that is not there, and not Docker Hub. */
function atHome(
  operation: string,
  parameters: Record<string, string>,
): Record<string, string> {
  if (operation !== "GET /images/search") return parameters;
  return { ...parameters, term: `127.0.0.1:1/${parameters["term"] ?? ""}` };
}

function text(): fc.Arbitrary<string> {
  return fc.oneof(
    fc.constantFrom(
      "",
      "0",
      "1",
      "true",
      "-1",
      "NaN",
      "1e400",
      "9223372036854775808",
      "\0",
      "../../etc/passwd",
      "{",
      "{}",
      "[]",
      '{"label":{"a=b":true}}',
      '{"status":["no-such"]}',
      "a".repeat(4000),
      "ü\u2028\ud83d\ude00",
      "%00",
      NAME,
      "/",
      "sh",
    ),
    fc.string({ maxLength: 40 }),
    fc.json({ maxDepth: 2 }),
  );
}

/** The path with something in the place of each parameter. */
function pathOf(template: string): fc.Arbitrary<string> {
  const pieces = template.split(/(\{\w+\})/).map((piece) =>
    piece.startsWith("{")
      ? fc
          .oneof(fc.constant(NAME), text())
          // A client's library takes "." and ".." for steps.
          .map((value) => encodeURIComponent(value.replace(/^\.*$/, "x")))
      : fc.constant(piece),
  );
  return fc.tuple(...pieces).map((parts) => parts.join(""));
}

/** A body: JSON of the wrong shape, the right names with the wrong values, or no JSON at all. */
function body(): fc.Arbitrary<unknown> {
  const value: fc.Arbitrary<unknown> = fc.oneof(
    text(),
    fc.constantFrom<unknown>(null, true, 0, -1, 1e308, 2 ** 53, [], {}, [[]]),
    fc.object({ maxDepth: 1, maxKeys: 3 }),
    fc.array(text(), { maxLength: 3 }),
  );
  const names = fc.constantFrom(...FIELDS);
  const shallow = fc.dictionary(names, value, { maxKeys: 6 });
  return fc.oneof(
    shallow,
    fc.dictionary(names, fc.oneof(value, shallow), { maxKeys: 4 }),
    fc.jsonValue({ maxDepth: 2 }),
    fc.constantFrom("{", "\0", "null", '{"a":1}}', "[".repeat(50_000)),
    fc
      .uint8Array({ maxLength: 300 })
      .map((bytes) => Buffer.from(bytes) as unknown),
  );
}

/** Names that mean something in some body. */
const FIELDS = [
  "AttachStdin",
  "Binds",
  "Cmd",
  "Config",
  "Container",
  "ContainerConfig",
  "Detach",
  "Driver",
  "DriverOpts",
  "EndpointConfig",
  "EndpointsConfig",
  "Entrypoint",
  "Env",
  "ExposedPorts",
  "ExtraHosts",
  "Force",
  "Healthcheck",
  "HostConfig",
  "Hostname",
  "IPAM",
  "IPAMConfig",
  "IPv4Address",
  "Image",
  "Internal",
  "Labels",
  "LogConfig",
  "MacAddress",
  "Memory",
  "Mounts",
  "Name",
  "NanoCpus",
  "NetworkMode",
  "NetworkingConfig",
  "Options",
  "PortBindings",
  "RestartPolicy",
  "StopTimeout",
  "Subnet",
  "Sysctls",
  "Tmpfs",
  "Tty",
  "Ulimits",
  "User",
  "Volumes",
  "WorkingDir",
];
