/** What the name service answers to one query of one container. */
import { isIPv4 } from "node:net";
import {
  AUTHORITATIVE_ANSWER,
  decode,
  encode,
  RECURSION_AVAILABLE,
  RECURSION_DESIRED,
  TRUNCATED_RESPONSE,
  type Answer,
  type DecodedPacket,
} from "dns-packet";
import { addressOfReverseName, type NameDirectory } from "./name-directory.js";
import { forward, type Transport } from "./upstream.js";

/** Seconds a client may keep an answer, as Docker's. */
const TTL = 600;
/** The largest answer over UDP to a client that names no size (RFC 1035), and to one that does. */
const PLAIN_UDP = 512;
const MAX_UDP = 4096;
/** What a query may have: nobody needs more. */
const MAX_QUERY = 4096;
const HEADER = 12;
/** Response codes (RFC 1035). */
const FORMERR = 1;
const SERVFAIL = 2;
const NOTIMP = 4;
const REFUSED = 5;
/** Queries under way to other servers: of one client, and of all. */
const MAX_FORWARDED_OF_ONE = 64;
const MAX_FORWARDED = 512;

export interface ResponderOptions {
  names: NameDirectory;
  /** The servers that a container's other queries go to; none when it may ask nobody. */
  upstreams: (containerId: string) => Promise<string[]>;
  /** Where they are asked; 53 where absent. */
  port?: number;
}

export class Responder {
  readonly #options: ResponderOptions;
  readonly #forwarded = new Map<string, number>();
  #allForwarded = 0;
  /** Turns the order of addresses, from answer to answer. */
  #turn = 0;

  constructor(options: ResponderOptions) {
    this.#options = options;
  }

  /**
   * @param client the container that asks; undefined when nobody knows it
   * @returns undefined when there is to be no answer at all
   */
  async answer(
    message: Buffer,
    client: string | undefined,
    transport: Transport,
  ): Promise<Buffer | undefined> {
    if (message.length < HEADER || message.length > MAX_QUERY) return undefined;
    const flags = message.readUInt16BE(2);
    // An answer is no query: to answer it could go on for ever.
    if (flags & 0x8000) return undefined;
    if (client === undefined) return failure(message, REFUSED);
    if ((flags >> 11) & 0xf) return failure(message, NOTIMP);
    let query: DecodedPacket;
    try {
      query = decode(message);
    } catch {
      return failure(message, FORMERR);
    }
    const question = query.questions?.[0];
    if (query.questions?.length !== 1 || !question) {
      return failure(message, FORMERR);
    }
    const answers = this.#own(client, question.name, question.type);
    if (answers) return respond(query, answers, transport);
    return this.#ask(message, client, transport);
  }

  /** @returns undefined for what is not this service's to answer */
  #own(client: string, name: string, type: string): Answer[] | undefined {
    const { names } = this.#options;
    const reversed = addressOfReverseName(name);
    if (reversed !== undefined) {
      const owner = names.reverse(client, reversed);
      if (owner === undefined) return undefined;
      return type === "PTR"
        ? [{ type: "PTR", name, ttl: TTL, data: owner }]
        : [];
    }
    const addresses = names.lookup(client, name);
    // A name that is known is so for all types: without an address of the family there is no answer, not
    // another server's.
    if (type !== "A" && type !== "AAAA") return addresses && [];
    const found = addresses?.filter((one) => isIPv4(one) === (type === "A"));
    return (
      found &&
      this.#rotated(found).map((data) => ({ type, name, ttl: TTL, data }))
    );
  }

  #rotated<T>(items: T[]): T[] {
    if (items.length < 2) return items;
    const start = this.#turn++ % items.length;
    return [...items.slice(start), ...items.slice(0, start)];
  }

  async #ask(
    message: Buffer,
    client: string,
    transport: Transport,
  ): Promise<Buffer> {
    const own = this.#forwarded.get(client) ?? 0;
    if (own >= MAX_FORWARDED_OF_ONE || this.#allForwarded >= MAX_FORWARDED) {
      return failure(message, SERVFAIL);
    }
    this.#forwarded.set(client, own + 1);
    this.#allForwarded++;
    try {
      const { upstreams, port } = this.#options;
      const servers = await upstreams(client);
      const answer = await forward(message, servers, transport, port);
      return answer ?? failure(message, SERVFAIL);
    } finally {
      this.#allForwarded--;
      const left = (this.#forwarded.get(client) ?? 1) - 1;
      if (left === 0) this.#forwarded.delete(client);
      else this.#forwarded.set(client, left);
    }
  }
}

function respond(
  query: DecodedPacket,
  answers: Answer[],
  transport: Transport,
): Buffer {
  const packet = {
    type: "response" as const,
    id: query.id ?? 0,
    flags:
      AUTHORITATIVE_ANSWER |
      RECURSION_AVAILABLE |
      (query.flag_rd ? RECURSION_DESIRED : 0),
    questions: query.questions ?? [],
    answers,
  };
  const whole = encode(packet);
  const limit = transport === "tcp" ? 0xffff : udpSizeOf(query);
  if (whole.length <= limit) return whole;
  return encode({
    ...packet,
    flags: packet.flags | TRUNCATED_RESPONSE,
    answers: [],
  });
}

function udpSizeOf(query: DecodedPacket): number {
  const option = query.additionals?.find(({ type }) => type === "OPT");
  const size = option?.type === "OPT" ? option.udpPayloadSize : undefined;
  return Math.min(Math.max(size ?? PLAIN_UDP, PLAIN_UDP), MAX_UDP);
}

/** The query's header, and no more, as an answer with a response code. */
function failure(query: Buffer, code: number): Buffer {
  const header = Buffer.from(query.subarray(0, HEADER));
  const opcodeAndRecursion = query.readUInt16BE(2) & 0x7900;
  header.writeUInt16BE(0x8080 | opcodeAndRecursion | code, 2);
  header.fill(0, 4);
  return header;
}
