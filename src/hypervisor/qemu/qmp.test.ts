import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Unavailable } from "../../errors.js";
import { QmpClient, QmpError } from "./qmp.js";
import { connectSocket, connectWhenThere } from "./socket.js";

const GREETING = '{"QMP": {"version": {}, "capabilities": []}}\r\n';

interface Command {
  execute: string;
  arguments: unknown;
  id: number;
}

describe("QMP", { timeout: 10_000 }, () => {
  let directory: string;
  let path: string;
  let server: net.Server;
  let serve: (socket: net.Socket) => void;

  before(async () => {
    directory = mkdtempSync(join(tmpdir(), "hull-qmp-"));
    path = join(directory, "qmp");
    server = net.createServer((socket) => {
      socket.on("error", () => undefined);
      serve(socket);
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
  });
  after(() => {
    server.close();
    rmSync(directory, { recursive: true });
  });

  /** Answers each command with what `answer` makes of it. */
  function speak(answer: (command: Command) => string): void {
    serve = (socket) => {
      socket.write(GREETING);
      let text = "";
      socket.on("data", (chunk) => {
        text += chunk.toString();
        const lines = text.split("\n");
        text = lines.pop() ?? "";
        for (const line of lines) {
          const command = JSON.parse(line) as Command;
          socket.write(
            command.execute === "qmp_capabilities"
              ? `{"return": {}, "id": ${command.id}}\r\n`
              : answer(command),
          );
        }
      });
    };
  }

  const open = async () => QmpClient.open(await connectSocket(path));

  test("commands resolve with their own return value", async () => {
    const held: string[] = [];
    speak(({ id, execute }) => {
      held.unshift(`{"return": "${execute}", "id": ${id}}\n`);
      return held.length < 2 ? "" : held.join("");
    });
    const qmp = await open();
    assert.deepEqual(
      await Promise.all([qmp.execute("first"), qmp.execute("second")]),
      ["first", "second"],
    );
    qmp.close();
  });

  test("a refusal has QEMU's words", async () => {
    speak(
      ({ id }) =>
        `{"error": {"class": "GenericError", "desc": "no way"}, "id": ${id}}\n`,
    );
    const qmp = await open();
    await assert.rejects(
      qmp.execute("device_add"),
      (error: Error) =>
        error instanceof QmpError &&
        error.message === "QEMU refused device_add: no way",
    );
    qmp.close();
  });

  test("events reach the listeners", async () => {
    speak(
      ({ id }) =>
        `{"event": "STOP", "timestamp": {}}\n` +
        `{"event": "SHUTDOWN", "data": {"guest": true}, "timestamp": {}}\n` +
        `{"return": {}, "id": ${id}}\n`,
    );
    const qmp = await open();
    const events: unknown[] = [];
    qmp.onEvent((event) => events.push(event));
    await qmp.execute("stop");
    assert.deepEqual(events, [
      { name: "STOP", data: {} },
      { name: "SHUTDOWN", data: { guest: true } },
    ]);
    qmp.close();
  });

  test("a command without an answer fails in time, and the session goes on", async () => {
    speak(({ id, execute }) =>
      execute === "hang" ? "" : `{"return": 1, "id": ${id}}\n`,
    );
    const qmp = await open();
    await assert.rejects(qmp.execute("hang", {}, 20), /hang within 20 ms/);
    assert.equal(await qmp.execute("go"), 1);
    qmp.close();
  });

  test("what waits fails when QEMU goes away", async () => {
    serve = (socket) => {
      socket.write(GREETING);
      socket.once("data", () => {
        socket.write('{"return": {}, "id": 1}\n');
        socket.once("data", () => socket.destroy());
      });
    };
    const qmp = await open();
    await assert.rejects(qmp.execute("quit"), Unavailable);
    await qmp.closed;
    await assert.rejects(qmp.execute("quit"), Unavailable);
  });

  test("garbage and endless lines end the session", async () => {
    for (const bad of ["no json\n", "x".repeat(3 * 1024 * 1024)]) {
      speak(() => bad);
      const qmp = await open();
      await assert.rejects(qmp.execute("go"), Unavailable);
      await qmp.closed;
    }
  });

  test("without a greeting, opening fails in time", async () => {
    serve = () => undefined;
    await assert.rejects(
      QmpClient.open(await connectSocket(path), 20),
      /did not greet within 20 ms/,
    );
  });

  test("a socket that is yet to come is waited for", async () => {
    const later = join(directory, "later");
    const connecting = connectWhenThere(later, new AbortController().signal);
    const late = net.createServer((socket) => socket.end());
    late.listen(later);
    const socket = await connecting;
    assert(socket);
    socket.destroy();
    late.close();
  });

  test("waiting for a socket ends when it is given up", async () => {
    const stop = new AbortController();
    const connecting = connectWhenThere(join(directory, "no"), stop.signal);
    stop.abort();
    assert.equal(await connecting, undefined);
  });
});
