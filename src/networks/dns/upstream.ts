/** Passes queries on to other name servers, and their answers back as they are (RFC 1035, RFC 7766). */
import { createSocket } from "node:dgram";
import { randomInt } from "node:crypto";
import { connect, isIPv6 } from "node:net";

/** Where servers are asked. */
export const DNS_PORT = 53;
/** How long one server has to answer, in ms. */
const TIMEOUT = 3000;
/** The flags' byte with QR, the bit of answers. */
const FLAGS_AT = 2;
const QR = 0x80;

export type Transport = "udp" | "tcp";

/**
 * Asks the servers one after the other, until one answers, whatever it answers. A truncated answer is
 * passed on, so that the asker comes again over TCP.
 * @returns the answer with the query's ID; undefined when none answered
 */
export async function forward(
  query: Buffer,
  servers: readonly string[],
  transport: Transport,
  port = DNS_PORT,
): Promise<Buffer | undefined> {
  // An ID, and below a port, that nobody who is not on the way can guess.
  const asked = Buffer.from(query);
  asked.writeUInt16BE(randomInt(0x10000), 0);
  for (const server of servers) {
    const ask = transport === "udp" ? askByUdp : askByTcp;
    const answer = await ask(asked, server, port).catch(() => undefined);
    if (answer) {
      query.copy(answer, 0, 0, 2);
      return answer;
    }
  }
  return undefined;
}

function askByUdp(
  query: Buffer,
  server: string,
  port: number,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(isIPv6(server) ? "udp6" : "udp4");
    const timer = setTimeout(() => end(new Error("no answer")), TIMEOUT);
    const end = (outcome: Buffer | Error) => {
      clearTimeout(timer);
      socket.close();
      if (outcome instanceof Error) reject(outcome);
      else resolve(outcome);
    };
    socket.on("error", end);
    // Connected: the kernel passes on what comes from this server only.
    socket.connect(port, server, () => socket.send(query));
    socket.on("message", (answer) => {
      if (answers(answer, query)) end(answer);
    });
  });
}

function askByTcp(
  query: Buffer,
  server: string,
  port: number,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: server, port });
    const timer = setTimeout(() => end(new Error("no answer")), TIMEOUT);
    const end = (outcome: Buffer | Error) => {
      clearTimeout(timer);
      socket.destroy();
      if (outcome instanceof Error) reject(outcome);
      else resolve(outcome);
    };
    let received = Buffer.alloc(0);
    socket.on("error", end);
    socket.on("close", () => end(new Error("closed")));
    socket.on("connect", () => socket.write(framed(query)));
    socket.on("data", (chunk) => {
      received = Buffer.concat([received, chunk]);
      if (received.length < 2) return;
      const length = received.readUInt16BE(0);
      if (received.length < 2 + length) return;
      const answer = received.subarray(2, 2 + length);
      end(answers(answer, query) ? answer : new Error("no answer to this"));
    });
  });
}

/** A message as it travels over TCP: behind its length. */
export function framed(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length, 0);
  return Buffer.concat([length, message]);
}

function answers(answer: Buffer, query: Buffer): boolean {
  return (
    answer.length >= 12 &&
    answer.readUInt16BE(0) === query.readUInt16BE(0) &&
    (answer.readUInt8(FLAGS_AT) & QR) !== 0
  );
}
