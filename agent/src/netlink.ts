/**
 * rtnetlink messages (rtnetlink(7)), several in one buffer: the kernel carries them out in order, tells of
 * each that failed, and acknowledges the last, so that one send and mostly one receive configure a network.
 *
 * They are made of 32-bit words in the machine's order, which is little-endian: the first of two fields of
 * 16 bits is the low half. Every start of a container comes by here, and a word is one step of the script
 * where its bytes would be four.
 */
import { AF_INET, AF_INET6 } from "./constants.js";
import type { AddressWords } from "./ip-address.js";

const HEADER = 16;
/** Room for the changes of all of a machine's NICs, in bytes. */
const BUFFER = 4096;
const NLMSG_ERROR = 2;
const NLM_F_REQUEST = 1;
const NLM_F_ACK = 4;
const NLM_F_REPLACE = 0x100;
const NLM_F_CREATE = 0x400;

const RTM_NEWLINK = 16;
const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
const RTM_NEWROUTE = 24;

const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_NET_NS_FD = 28;
const IFLA_NEW_IFINDEX = 49;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_BROADCAST = 4;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;

const IFF_UP = 1;
/** The address is usable at once, without the second of duplicate detection. */
const IFA_F_NODAD = 2;
const RT_TABLE_MAIN = 254;
const RTPROT_BOOT = 3;
const RTN_UNICAST = 1;

export interface LinkChange {
  name?: string;
  mac?: AddressWords;
  mtu?: number;
  up?: boolean;
  /** Moves it into the network namespace of this descriptor; what is set beside it is set there. */
  namespace?: number;
  /** The index it has there. */
  newIndex?: number;
}

export class NetlinkBatch {
  readonly buffer = new ArrayBuffer(BUFFER);
  private readonly words = new Int32Array(this.buffer);
  /** Places of words: where the next message begins, and where the last one did. */
  private next = 0;
  private last = 0;
  /** What each message does, in words; a message's sequence number is its place here, from 1. */
  private readonly steps: string[] = [];
  /** Of the first message that failed: what it does, and why. */
  failure: string | undefined;

  /** Bytes in use; more than the buffer has when the messages did not fit. */
  get length(): number {
    return 4 * this.next;
  }

  /** Makes it empty, for another use. */
  clear(): this {
    this.next = 0;
    this.steps.length = 0;
    this.failure = undefined;
    return this;
  }

  /** Has the last message acknowledged. */
  close(): void {
    const { words, last } = this;
    words[last + 1] = (words[last + 1] as number) | (NLM_F_ACK << 16);
  }

  /** Changes a link (a network device) by its index. */
  link(what: string, index: number, change: LinkChange): void {
    const { words } = this;
    const { name, mac, mtu, up, namespace, newIndex } = change;
    let at = this.begin(what, RTM_NEWLINK, 0);
    words[at++] = 0;
    words[at++] = index;
    words[at++] = up ? IFF_UP : 0;
    words[at++] = up === undefined ? 0 : IFF_UP;
    if (name !== undefined)
      at = this.bytes(at, IFLA_IFNAME, wordsOf(name), name.length + 1);
    if (mac) at = this.bytes(at, IFLA_ADDRESS, mac, 6);
    if (mtu) at = this.number(at, IFLA_MTU, mtu);
    if (namespace !== undefined)
      at = this.number(at, IFLA_NET_NS_FD, namespace);
    if (newIndex !== undefined)
      at = this.number(at, IFLA_NEW_IFINDEX, newIndex);
    this.end(at);
  }

  /** Gives a link an address (again: it may have it). */
  address(
    what: string,
    index: number,
    address: AddressWords,
    prefix: number,
    broadcast?: AddressWords,
  ): void {
    const { words } = this;
    const v6 = address.length > 1;
    let at = this.begin(what, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
    words[at++] =
      (v6 ? AF_INET6 | (IFA_F_NODAD << 16) : AF_INET) | (prefix << 8);
    words[at++] = index;
    at = this.ip(at, IFA_LOCAL, address);
    at = this.ip(at, IFA_ADDRESS, address);
    if (broadcast) at = this.ip(at, IFA_BROADCAST, broadcast);
    this.end(at);
  }

  /** Takes an address from a link. */
  removeAddress(
    what: string,
    index: number,
    address: AddressWords,
    prefix: number,
  ): void {
    const { words } = this;
    let at = this.begin(what, RTM_DELADDR, 0);
    words[at++] = (address.length > 1 ? AF_INET6 : AF_INET) | (prefix << 8);
    words[at++] = index;
    at = this.ip(at, IFA_LOCAL, address);
    at = this.ip(at, IFA_ADDRESS, address);
    this.end(at);
  }

  /** Sets the default route of the gateway's family. */
  defaultRoute(what: string, index: number, gateway: AddressWords): void {
    const { words } = this;
    let at = this.begin(what, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
    words[at++] = gateway.length > 1 ? AF_INET6 : AF_INET;
    words[at++] = RT_TABLE_MAIN | (RTPROT_BOOT << 8) | (RTN_UNICAST << 24);
    words[at++] = 0;
    at = this.ip(at, RTA_GATEWAY, gateway);
    at = this.number(at, RTA_OIF, index);
    this.end(at);
  }

  /**
   * Reads answers: they were received in the place of the messages.
   * @returns the last message was answered, so that no more will come
   */
  read(length: number): boolean {
    const { words, steps } = this;
    let last = false;
    for (let at = 0; 4 * at + HEADER < length;) {
      const size = words[at] as number;
      if (size <= HEADER || 4 * at + size > length) break;
      if (((words[at + 1] as number) & 0xffff) === NLMSG_ERROR) {
        const sequence = words[at + 2] as number;
        const errno = words[at + 4] as number;
        if (errno !== 0)
          this.failure ??= `${steps[sequence - 1] ?? "?"}: errno ${0 - errno}`;
        last = sequence === steps.length;
      }
      at += (size + 3) >> 2;
    }
    return last;
  }

  /** A header. @returns the place behind it, as those below do */
  private begin(what: string, type: number, flags: number): number {
    const { words, steps, next } = this;
    steps.push(what);
    words[next + 1] = type | ((NLM_F_REQUEST | flags) << 16);
    words[next + 2] = steps.length;
    words[next + 3] = 0;
    return next + 4;
  }

  /** The message goes up to there. */
  private end(at: number): void {
    const { next } = this;
    this.words[next] = 4 * (at - next);
    this.last = next;
    this.next = at;
  }

  private number(at: number, attribute: number, value: number): number {
    const { words } = this;
    words[at] = 8 | (attribute << 16);
    words[at + 1] = value;
    return at + 2;
  }

  private ip(at: number, attribute: number, address: AddressWords): number {
    return address.length > 1
      ? this.bytes(at, attribute, address, 16)
      : this.number(at, attribute, address[0] as number);
  }

  /** So many bytes, of as many words as they need. */
  private bytes(
    at: number,
    attribute: number,
    value: number[],
    count: number,
  ): number {
    const { words } = this;
    words[at++] = (4 + count) | (attribute << 16);
    for (let i = 0; i < value.length; i++) words[at++] = value[i] as number;
    return at;
  }
}

/** A text of ASCII, and the zero behind it. */
function wordsOf(text: string): number[] {
  const words = new Array(1 + (text.length >> 2)).fill(0) as number[];
  for (let i = 0; i < text.length; i++)
    words[i >> 2] =
      (words[i >> 2] as number) | (text.charCodeAt(i) << (8 * (i & 3)));
  return words;
}
