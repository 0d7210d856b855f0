import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import {
  connect,
  createServer,
  type AddressInfo,
  type Server,
  type Socket,
} from "node:net";
import { text } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";
import { forward, type Forward } from "./forwarding.js";
import { hasIPv6Loopback } from "./links.js";

const skip = (await hasIPv6Loopback()) ? false : "this host has no IPv6";

/** A port of ::1 that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "::1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

describe("a forwarded TCP port", { skip }, () => {
  let target: Server;
  let port: number;
  let opened: Forward;
  let serve: (socket: Socket) => void;
  before(async () => {
    target = createServer({ allowHalfOpen: true }, (socket) => {
      // Whoever forwards may break off.
      socket.on("error", () => undefined);
      serve(socket);
    });
    target.listen(0, "127.0.0.1");
    await once(target, "listening");
    port = await freePort();
    opened = await forward({
      ...{ protocol: "tcp", host: "::1", port },
      target: {
        host: "127.0.0.1",
        port: (target.address() as AddressInfo).port,
      },
    });
  });
  after(() => target.close());

  test("carries both ways, and each end on its own", async () => {
    // Answers once the client has said all, and only then.
    serve = (socket) => {
      let said = "";
      socket.on("data", (chunk) => (said += chunk.toString()));
      socket.on("end", () => socket.end(`${said} and back`));
    };
    const client = connect({ host: "::1", port, allowHalfOpen: true });
    client.end("there");
    assert.equal(await text(client), "there and back");
  });

  test("a connection that breaks breaks the client's", async () => {
    serve = (socket) =>
      void socket.once("data", () => socket.resetAndDestroy());
    const client = connect({ host: "::1", port });
    client.write("x");
    const [error] = (await once(client, "error")) as [NodeJS.ErrnoException];
    assert.equal(error.code, "ECONNRESET");
  });

  test("the port is taken, and free again once it is closed", async () => {
    await assert.rejects(
      forward({
        ...{ protocol: "tcp", host: "::1", port },
        target: { host: "127.0.0.1", port: 1 },
      }),
      { code: "EADDRINUSE" },
    );
    serve = (socket) => socket.write("hello");
    const client = connect({ host: "::1", port });
    await once(client, "data");
    const ended = once(client, "error");
    await opened.close();
    assert.equal(
      ((await ended)[0] as NodeJS.ErrnoException).code,
      "ECONNRESET",
    );
    const server = createServer().listen(port, "::1");
    await once(server, "listening");
    server.close();
  });
});

test("a forwarded UDP port answers each client", { skip }, async () => {
  const target = createSocket("udp4");
  target.on("message", (message, from) =>
    target.send(`${message.toString()} back`, from.port, from.address),
  );
  target.bind(0, "127.0.0.1");
  await once(target, "listening");
  const port = await freePort();
  const opened = await forward({
    ...{ protocol: "udp", host: "::1", port },
    target: { host: "127.0.0.1", port: target.address().port },
  });
  const clients = ["a", "b"].map((name) => ({
    name,
    socket: createSocket("udp6"),
  }));
  try {
    await Promise.all(
      clients.map(async ({ name, socket }) => {
        for (const word of ["one", "two"]) {
          const answer = once(socket, "message");
          socket.send(`${name} ${word}`, port, "::1");
          const [message] = (await answer) as [Buffer];
          assert.equal(message.toString(), `${name} ${word} back`);
        }
      }),
    );
  } finally {
    clients.forEach(({ socket }) => socket.close());
    target.close();
    await opened.close();
  }
});
