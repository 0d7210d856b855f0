import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { AddressInfo, TcpNetConnectOpts } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { connect, type ConnectionOptions, type TLSSocket } from "node:tls";
import { pino } from "pino";
import { hijack } from "../engine-api/hijack.js";
import { createApi, createApiServer } from "../engine-api/server.js";

/** A certificate authority, a server's and a client's certificate, and a stranger's. */
function certificates(t: TestContext) {
  const directory = mkdtempSync(path.join(tmpdir(), "hull-tls-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const openssl = (...args: string[]) =>
    execFileSync("openssl", args, { cwd: directory, stdio: "ignore" });
  const key = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
  ];
  for (const ca of ["ca", "stranger"]) {
    openssl(
      ...["req", "-x509", ...key, "-subj", `/CN=${ca}`, "-days", "2"],
      ...["-keyout", `${ca}.key`, "-out", `${ca}.pem`],
    );
  }
  writeFileSync(
    path.join(directory, "names"),
    "subjectAltName=IP:127.0.0.1,DNS:localhost",
  );
  for (const name of ["server", "client"]) {
    openssl(
      ...["req", ...key, "-subj", `/CN=${name}`],
      ...["-keyout", `${name}.key`, "-out", `${name}.csr`],
    );
    openssl(
      ...["x509", "-req", "-in", `${name}.csr`, "-days", "2"],
      ...["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"],
      ...["-extfile", "names", "-out", `${name}.pem`],
    );
  }
  const read = (file: string) => readFileSync(path.join(directory, file));
  return (name: string) => ({
    ca: read("ca.pem"),
    cert: read(`${name}.pem`),
    key: read(`${name}.key`),
  });
}

test("over TLS a hijacked connection half-closes, and strangers are refused", async (t) => {
  const identity = certificates(t);
  const api = createApi({
    log: pino({ level: "silent" }),
    serverVersion: "0.0.0",
    groups: [
      (router) => {
        router.post("/cat", async (ctx) => {
          const client = await hijack(ctx, { multiplexed: false, stdin: true });
          for await (const chunk of client.stdin) {
            await client.stdout(chunk as Buffer);
          }
          await client.stdout(Buffer.from("bye\n"));
          client.end();
        });
      },
    ],
  });
  const server = createApiServer(api, {
    tls: {
      ...identity("server"),
      requestCert: true,
      rejectUnauthorized: true,
    },
  });
  server.server.listen(0, "127.0.0.1");
  await once(server.server, "listening");
  t.after(() => server.close(0));
  const { port } = server.server.address() as AddressInfo;
  const dial = (identityOf: object, allowHalfOpen: boolean): TLSSocket => {
    const options: ConnectionOptions & TcpNetConnectOpts = {
      port,
      host: "127.0.0.1",
      allowHalfOpen,
      ...identityOf,
    };
    return connect(options);
  };

  const { ca } = identity("client");
  for (const [who, itself] of Object.entries({
    nobody: { ca },
    stranger: { ...identity("stranger"), ca },
  })) {
    const refused = dial(itself, false);
    refused.on("error", () => undefined);
    refused.write("GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = "";
    refused.on("data", (chunk: Buffer) => (answer += chunk.toString()));
    await new Promise((resolve) => refused.on("close", resolve));
    assert.equal(answer, "", who);
  }

  const socket = dial(identity("client"), true);
  socket.write(
    "POST /cat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
  );
  socket.end("hi\n");
  let answer = "";
  for await (const chunk of socket) answer += (chunk as Buffer).toString();
  assert.match(answer, /^HTTP\/1\.1 101 UPGRADED\r\n[^]*\r\n\r\nhi\nbye\n$/);
});
