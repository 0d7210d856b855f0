/** The shapes of what an agent says (protocol/messages.ts), checked before anybody uses it. */
import { z } from "zod";
import type {
  AgentEvent,
  OperationName,
  Operations,
} from "../../../protocol/index.js";
import { ProtocolError } from "./protocol-error.js";

const count = z.int().nonnegative();
const empty = z.object({});

/** Four streams a process, numbered in 32 bits. */
const MAX_PROCESS = 2 ** 30 - 1;

/** Text that ends up in logs and messages is cut rather than refused. */
const text = z.string().transform((value) => value.slice(0, 4096));

const exit = z.object({
  code: z.int().min(0).max(255),
  signal: z.int().min(0).max(64),
  oomKilled: z.boolean(),
  // What a Date can hold: beyond, no time can be shown.
  at: z.number().nonnegative().max(8.64e15),
});

const outputState = z.object({ produced: count, ended: z.boolean() });

const hello = z.object({
  protocol: z.int(),
  version: text,
  kernel: text,
  bootId: text,
  uptimeMs: z.number().nonnegative(),
  agent: z
    .object({ residentBytes: count, readyMs: z.number().nonnegative() })
    .optional(),
  ready: z.boolean(),
  processes: z.array(
    z.object({
      process: z.int().positive().max(MAX_PROCESS),
      pid: count,
      exit: exit.optional(),
      stdout: outputState,
      stderr: outputState,
      stdinReceived: count,
    }),
  ),
});

/** -1 is none. */
const limit = z.int().min(-1);
const traffic = z.object({
  bytes: count,
  packets: count,
  errors: count,
  dropped: count,
});

const results: {
  [Op in OperationName]: z.ZodType<Operations[Op]["result"]>;
} = {
  hello,
  setup: z.object({
    timings: z.record(text, count),
  }),
  wake: empty,
  spawn: z.object({ pid: count }),
  signal: empty,
  resize: empty,
  release: empty,
  processes: z.object({
    processes: z.array(
      z.object({
        pid: count,
        ppid: count,
        user: text,
        cpuMs: z.number(),
        startedAt: z.number(),
        rss: z.number(),
        tty: text,
        command: text,
      }),
    ),
  }),
  files: z.object({
    pid: count,
    stat: z
      .object({
        name: text,
        size: count,
        mode: z.int().min(0).max(0o177777),
        seconds: z.int(),
        nanoseconds: z.int().min(0).max(999_999_999),
        linkTarget: text,
      })
      .optional(),
  }),
  freeze: empty,
  reset: empty,
  furnish: empty,
  rouse: empty,
  seed: empty,
  load: z.object({
    code: z.int().min(0).max(255),
    signal: z.int().min(0).max(64),
  }),
  network: empty,
  usage: z.object({
    machine: z.object({ cpus: count, memoryBytes: count, cpuUs: count }),
    cpu: z.object({
      userUs: count,
      systemUs: count,
      totalUs: count,
      periods: count,
      throttledPeriods: count,
      throttledUs: count,
    }),
    memory: z.object({
      bytes: count,
      peakBytes: count,
      limitBytes: limit,
      stat: z.record(text, count),
    }),
    pids: z.object({ current: count, limit }),
    devices: z.array(
      z.object({
        major: count,
        minor: count,
        readBytes: count,
        writtenBytes: count,
        reads: count,
        writes: count,
      }),
    ),
    interfaces: z.array(z.object({ name: text, rx: traffic, tx: traffic })),
    diskBytes: count,
  }),
  limit: empty,
  shutdown: empty,
};

const response = z.discriminatedUnion("ok", [
  z.object({ id: z.int(), ok: z.literal(true), result: z.unknown() }),
  z.object({
    id: z.int(),
    ok: z.literal(false),
    error: z.object({
      code: z.enum([
        "not-found",
        "executable-not-found",
        "executable-not-runnable",
        "no-such-user",
        "invalid",
        "system",
      ]),
      message: text,
      errno: text.optional(),
    }),
  }),
]);
export type CheckedResponse = z.infer<typeof response>;

const event: z.ZodType<AgentEvent> = z.discriminatedUnion("event", [
  z.object({ event: z.literal("hello"), hello }),
  z.object({ event: z.literal("exit"), process: z.int().positive(), exit }),
  z.object({ event: z.literal("oom") }),
  z.object({
    event: z.literal("log"),
    level: z.enum(["info", "warn", "error"]),
    message: text,
  }),
]);

/** @throws {ProtocolError} */
export function checkResponse(message: unknown): CheckedResponse {
  return check(response, message, "a response");
}

/** @throws {ProtocolError} */
export function checkResult<Op extends OperationName>(
  op: Op,
  result: unknown,
): Operations[Op]["result"] {
  return check(results[op], result, `the result of "${op}"`);
}

/** @throws {ProtocolError} */
export function checkEvent(message: unknown): AgentEvent {
  return check(event, message, "an event");
}

function check<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const where = issue?.path.length ? ` at ${issue.path.join(".")}` : "";
  throw new ProtocolError(
    `${what} is malformed${where}: ${issue?.message ?? "unknown"}`,
  );
}
