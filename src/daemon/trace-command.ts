/** `hulld trace CONTAINER`: asks the daemon where the time of a start went, and prints it. */
import { request } from "node:http";
import { z } from "zod";
import { parseHost } from "./hosts.js";

const Report = z.object({
  container: z.string(),
  begun: z.string(),
  kind: z.string().optional(),
  fallback: z.string().optional(),
  error: z.string().optional(),
  spans: z.array(
    z.object({ name: z.string(), at: z.number(), ms: z.number() }),
  ),
  ms: z.number(),
  firstByteMs: z.number().optional(),
});
type Report = z.output<typeof Report>;

/** Asking failed; the message is for the user. */
export class TraceError extends Error {}

const TIMEOUT_MS = 10_000;
/** Characters of the longest bar. */
const BAR = 40;

/**
 * @param host the daemon's socket, as `-H` takes it
 * @returns the table
 * @throws {TraceError} no daemon, no such container, or one that was never started
 * @throws {ConfigError} the host is none
 */
export async function traceOf(
  container: string,
  host: string,
): Promise<string> {
  const { status, text } = await get(
    host,
    `/hull/containers/${encodeURIComponent(container)}/start-trace`,
  );
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new TraceError(`${host} is no hulld: it answers HTTP ${status}`);
  }
  if (status !== 200) {
    const { data } = z.object({ message: z.string() }).safeParse(answer);
    const message = data?.message ?? `HTTP ${status}`;
    throw new TraceError(
      message === "page not found"
        ? `${host} is not a hulld that keeps traces`
        : message,
    );
  }
  const report = Report.safeParse(answer);
  if (!report.success) throw new TraceError(`${host} answers something else`);
  return table(report.data);
}

function get(
  host: string,
  path: string,
): Promise<{ status: number; text: string }> {
  const at = parseHost(host, false);
  if (at.kind === "fd") {
    throw new TraceError(
      "the daemon's socket is systemd's: name it with -H unix:///PATH",
    );
  }
  const where =
    at.kind === "unix"
      ? { socketPath: at.path }
      : { host: at.host.replace(/^\[|\]$/g, ""), port: at.port };
  return new Promise((resolve, reject) => {
    const fail = (error: Error) =>
      reject(
        new TraceError(`cannot reach the daemon at ${host}: ${error.message}`),
      );
    const outgoing = request(
      { ...where, path, timeout: TIMEOUT_MS },
      (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (chunk: string) => (text += chunk));
        response.on("error", fail);
        response.on("end", () =>
          resolve({ status: response.statusCode ?? 0, text }),
        );
      },
    );
    outgoing.on("timeout", () => outgoing.destroy(new Error("no answer")));
    outgoing.on("error", fail);
    outgoing.end();
  });
}

/** One line a span, with a bar from its begin to its end. */
export function table(report: Report): string {
  const { container, begun, kind, fallback, error, spans, firstByteMs } =
    report;
  const whole = Math.max(
    report.ms,
    firstByteMs ?? 0,
    ...spans.map(({ at, ms }) => at + ms),
  );
  const column = (ms: number) => Math.round((ms / (whole || 1)) * BAR);
  const width = Math.max(...spans.map(({ name }) => name.length), 10);
  const line = (name: string, at: number, ms: number | undefined) => {
    const begin = column(at);
    const end = Math.max(column(at + (ms ?? 0)), begin + 1);
    const took = ms === undefined ? "" : ms.toFixed(1);
    const bar =
      " ".repeat(begin) + (ms === undefined ? "^" : "=".repeat(end - begin));
    return `${name.padEnd(width)}  ${at.toFixed(1).padStart(8)}  ${took.padStart(8)}  ${bar}`;
  };
  return [
    `container  ${container.slice(0, 12)}`,
    `begun      ${begun}`,
    `start      ${kind ?? "no machine"}${fallback === undefined ? "" : ` (a faster way did not work: ${fallback})`}`,
    error === undefined
      ? `running    after ${report.ms.toFixed(1)} ms`
      : `failed     after ${report.ms.toFixed(1)} ms: ${error}`,
    `output     ${firstByteMs === undefined ? "none so far, or late" : `after ${firstByteMs.toFixed(1)} ms`}`,
    "",
    `${"span".padEnd(width)}  ${"at ms".padStart(8)}  ${"took ms".padStart(8)}`,
    ...spans.map(({ name, at, ms }) => line(name, at, ms)),
    line(error === undefined ? "running" : "failed", report.ms, undefined),
    ...(firstByteMs === undefined
      ? []
      : [line("first byte", firstByteMs, undefined)]),
    "",
  ].join("\n");
}
