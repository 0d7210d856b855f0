import assert from "node:assert/strict";
import { createServer } from "node:http";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { table, TraceError, traceOf } from "./trace-command.js";

const REPORT = {
  container: "0123456789abcdef",
  begun: "2026-01-02T03:04:05.000Z",
  kind: "cold",
  spans: [
    { name: "image", at: 0, ms: 50 },
    { name: "machine", at: 50, ms: 50 },
  ],
  ms: 100,
};

async function answering(
  t: TestContext,
  status: number,
  body: string,
): Promise<string> {
  const directory = await mkdtemp(path.join(tmpdir(), "hull-trace-"));
  const socket = path.join(directory, "s");
  const server = createServer((_, response) =>
    response.writeHead(status).end(body),
  );
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  t.after(async () => {
    server.close();
    await rm(directory, { recursive: true });
  });
  return `unix://${socket}`;
}

test("one line a span, its bar where it was", () => {
  const lines = table({ ...REPORT, firstByteMs: 100 }).split("\n");
  assert.ok(lines.includes("container  0123456789ab"));
  assert.ok(lines.includes("running    after 100.0 ms"));
  assert.ok(
    lines.includes(`image            0.0      50.0  ${"=".repeat(20)}`),
    lines.join("\n"),
  );
  assert.ok(
    lines.includes(
      `machine         50.0      50.0  ${" ".repeat(20)}${"=".repeat(20)}`,
    ),
  );
  assert.ok(lines.some((line) => line.startsWith("first byte     100.0")));
});

test("what failed, and what was tried before, is said", () => {
  const text = table({
    ...REPORT,
    fallback: "the template was cut short",
    error: "no such file",
  });
  assert.match(text, /start +cold \(.*the template was cut short\)/);
  assert.match(text, /failed +after 100\.0 ms: no such file/);
});

test("the daemon's answers become a table or an error", async (t) => {
  const good = await answering(t, 200, JSON.stringify(REPORT));
  assert.match(await traceOf("web", good), /^machine +50\.0/m);

  const none = await answering(t, 404, '{"message":"No such container: web"}');
  await assert.rejects(
    traceOf("web", none),
    new TraceError("No such container: web"),
  );

  const other = await answering(t, 200, "<html>");
  await assert.rejects(traceOf("web", other), /is no hulld/);
  await assert.rejects(
    traceOf("web", "unix:///nowhere"),
    /cannot reach the daemon/,
  );
});
