import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { after, before, describe, test } from "node:test";
import {
  decode,
  encode,
  type Packet,
  type RecordType,
  TRUNCATED_RESPONSE,
} from "dns-packet";
import { pino } from "pino";
import { NameDirectory } from "./name-directory.js";
import { NameServer } from "./name-server.js";
import { Responder } from "./responder.js";
import { framed } from "./upstream.js";

const HOST = "127.0.0.1";
const LONG = Array.from({ length: 60 }, (_, at) => `10.0.3.${at}`);

function query(
  name: string,
  type: RecordType = "A",
  more: Packet = {},
): Buffer {
  return encode({
    type: "query",
    id: 4711,
    flags: 0x100,
    questions: [{ type, name }],
    ...more,
  });
}

describe("the name service", () => {
  const names = new NameDirectory();
  let upstreams = [HOST];
  let server: NameServer;
  let client: string | undefined = "client";
  /** Queries that came to the other server, by how. */
  const asked: string[] = [];
  const closers: (() => void)[] = [];

  before(async () => {
    const other = createSocket("udp4");
    other.bind(0, HOST);
    await once(other, "listening");
    const port = other.address().port;
    other.on("message", (message, from) => {
      const { id = 0, questions = [] } = decode(message);
      const name = questions[0]?.name ?? "";
      asked.push(`udp ${name}`);
      if (name === "silent.example") return;
      // The first of these is not the answer to this question's ID.
      const answer = (flags: number, wrong = 0) =>
        encode({
          type: "response",
          id: (id + wrong) & 0xffff,
          flags,
          questions,
          ...(flags === 0 && {
            answers: [
              { type: "A", name, data: wrong ? "6.6.6.6" : "192.0.2.1" },
            ],
          }),
        });
      const flags =
        name === "long.example"
          ? TRUNCATED_RESPONSE
          : name === "no.example"
            ? 3
            : 0;
      other.send(answer(0, 1), from.port, from.address);
      other.send(answer(flags), from.port, from.address);
    });
    const stream = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.on("data", (data) => {
        const { id = 0, questions = [] } = decode(data.subarray(2));
        const name = questions[0]?.name ?? "";
        asked.push(`tcp ${name}`);
        const answers = LONG.map((address) => ({
          type: "A" as const,
          name,
          data: address,
        }));
        socket.end(
          framed(encode({ type: "response", id, questions, answers })),
        );
      });
    });
    stream.listen(port, HOST);
    await once(stream, "listening");
    closers.push(
      () => other.close(),
      () => stream.close(),
    );
    const base = {
      networkId: "n",
      networkName: "net",
      links: {},
      outward: true,
    };
    const add = (containerId: string, own: string[], addresses: string[]) =>
      names.set({ ...base, containerId, names: own, addresses });
    add("client", ["client"], ["10.0.0.9"]);
    add("one", ["one", "both"], ["10.0.0.1", "fd00::1"]);
    add("two", ["two", "both"], ["10.0.0.2"]);
    add("many", ["many"], LONG);
    server = new NameServer({
      address: HOST,
      port: 0,
      responder: new Responder({
        names,
        upstreams: async () => upstreams,
        port,
      }),
      clientOf: () => client,
      log: pino({ level: "silent" }),
    });
    await server.open();
    closers.push(() => void server.close());
  });
  after(() => closers.forEach((close) => close()));

  /** @returns undefined when nothing came */
  async function ask(message: Buffer, ms = 5000): Promise<Buffer | undefined> {
    const socket = createSocket("udp4");
    try {
      socket.send(message, server.port, HOST);
      const limit = AbortSignal.timeout(ms);
      const [answer] = (await once(socket, "message", { signal: limit })) as [
        Buffer,
      ];
      return answer;
    } catch {
      return undefined;
    } finally {
      socket.close();
    }
  }
  async function answered(message: Buffer) {
    const answer = await ask(message);
    assert.ok(answer, "no answer");
    const packet = decode(answer);
    assert.equal(packet.id, 4711);
    const data = (packet.answers ?? []).map((one) =>
      "data" in one && typeof one.data === "string" ? one.data : "",
    );
    return { packet, data, rcode: answer.readUInt8(3) & 0xf };
  }

  test("answers for names it knows, with nothing where the family is missing", async () => {
    assert.deepEqual((await answered(query("ONE"))).data, ["10.0.0.1"]);
    assert.deepEqual((await answered(query("one", "AAAA"))).data, ["fd00::1"]);
    const none = await answered(query("two", "AAAA"));
    assert.deepEqual([none.rcode, none.data], [0, []]);
    assert.deepEqual((await answered(query("one", "MX"))).data, []);
    const back = await answered(query("2.0.0.10.in-addr.arpa", "PTR"));
    assert.deepEqual(back.data, ["two.net"]);
    assert.deepEqual(asked, []);
  });

  test("turns the order of several addresses round", async () => {
    const first = new Set<string | undefined>();
    for (let i = 0; i < 4; i++) {
      const { data } = await answered(query("both"));
      assert.deepEqual([...data].sort(), ["10.0.0.1", "10.0.0.2"]);
      first.add(data[0]);
    }
    assert.equal(first.size, 2);
  });

  test("passes the rest on, and the answer back as it is", async () => {
    assert.deepEqual((await answered(query("example.com"))).data, [
      "192.0.2.1",
    ]);
    assert.equal((await answered(query("no.example"))).rcode, 3);
    const cut = await answered(query("long.example"));
    assert.equal(cut.packet.flag_tc, true);
    upstreams = [];
    assert.equal((await answered(query("example.com"))).rcode, 2);
    upstreams = [HOST];
  });

  test("over TCP answers are whole, its own and others'", async () => {
    const socket = connect(server.port, HOST);
    const read = async () => {
      let bytes = Buffer.alloc(0);
      while (bytes.length < 2 || bytes.length < 2 + bytes.readUInt16BE(0)) {
        const [chunk] = (await once(socket, "data")) as [Buffer];
        bytes = Buffer.concat([bytes, chunk]);
      }
      return decode(bytes.subarray(2));
    };
    const own = query("many");
    // In two pieces, as TCP may have it.
    socket.write(framed(own).subarray(0, 5));
    socket.write(framed(own).subarray(5));
    assert.equal((await read()).answers?.length, LONG.length);
    socket.write(framed(query("long.example")));
    assert.equal((await read()).answers?.length, LONG.length);
    assert.equal(asked.at(-1), "tcp long.example");
    socket.destroy();
    const short = await answered(query("many"));
    assert.equal(short.packet.flag_tc, true);
    const large = query("many", "A", {
      additionals: [
        {
          type: "OPT",
          name: ".",
          udpPayloadSize: 4096,
          extendedRcode: 0,
          ednsVersion: 0,
          flags: 0,
          flag_do: false,
          options: [],
        },
      ],
    });
    assert.equal((await answered(large)).data.length, LONG.length);
  });

  test("strangers and nonsense get the code for it, or nothing", async () => {
    client = undefined;
    assert.equal((await answered(query("one"))).rcode, 5);
    client = "client";
    const answer = query("one");
    answer.writeUInt16BE(0x8180, 2);
    assert.equal(await ask(answer, 300), undefined);
    assert.equal(await ask(Buffer.from("short"), 300), undefined);
    const broken = query("one");
    // A name that points at itself.
    broken.writeUInt16BE(0xc00c, 12);
    assert.equal((await ask(broken))?.readUInt8(3), 0x81);
    const update = query("one");
    update.writeUInt16BE(0x2800, 2);
    assert.equal((await ask(update))?.readUInt8(3), 0x84);
    const noisy = createSocket("udp4");
    noisy.bind(0, HOST);
    await once(noisy, "listening");
    for (let i = 0; i < 200; i++) {
      const bytes = Array.from(
        { length: 12 + (i % 40) },
        (_, at) => (i * 31 + at * 17) & 0xff,
      );
      const noise = Buffer.from(bytes);
      noise.writeUInt16BE(0, 2);
      noisy.send(noise, server.port, HOST);
    }
    noisy.close();
    assert.deepEqual((await answered(query("one"))).data, ["10.0.0.1"]);
  });
});
