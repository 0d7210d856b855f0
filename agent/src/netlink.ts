/**
 * rtnetlink messages (rtnetlink(7)), several in one buffer: the kernel carries them out in order, and
 * acknowledges each, so that one send and a few receives configure a network.
 */
import type { AddressBytes } from "./ip-address.js";

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
const AF_INET = 2;
const AF_INET6 = 10;

export interface LinkChange {
  name?: string;
  mac?: AddressBytes;
  mtu?: number;
  up?: boolean;
  /** Moves it into the network namespace of this descriptor; what is set beside it is set there. */
  namespace?: number;
  /** The index it has there. */
  newIndex?: number;
}

/** What the kernel said to one message; `errno` is 0 for done. */
export interface NetlinkAnswer {
  sequence: number;
  errno: number;
}

export class NetlinkBatch {
  readonly buffer: ArrayBuffer;
  private readonly view: DataView;
  private readonly bytes: Uint8Array;
  private start = 0;
  private at = 0;
  /** What each message does, in words; a message's sequence number is its place here, from 1. */
  readonly steps: string[] = [];

  constructor(size = BUFFER) {
    this.buffer = new ArrayBuffer(size);
    this.view = new DataView(this.buffer);
    this.bytes = new Uint8Array(this.buffer);
  }

  /** Bytes in use. */
  get length(): number {
    return this.at;
  }

  /** Changes a link (a network device) by its index. */
  link(what: string, index: number, change: LinkChange): void {
    this.begin(what, RTM_NEWLINK, NLM_F_ACK);
    this.u8s(0, 0, 0, 0);
    this.u32(index);
    this.u32(change.up ? IFF_UP : 0);
    this.u32(change.up === undefined ? 0 : IFF_UP);
    if (change.name !== undefined) {
      const name = [...change.name].map((char) => char.charCodeAt(0));
      this.attribute(IFLA_IFNAME, [...name, 0]);
    }
    if (change.mac) this.attribute(IFLA_ADDRESS, change.mac);
    if (change.mtu) this.attribute(IFLA_MTU, u32Bytes(change.mtu));
    if (change.namespace !== undefined)
      this.attribute(IFLA_NET_NS_FD, u32Bytes(change.namespace));
    if (change.newIndex !== undefined)
      this.attribute(IFLA_NEW_IFINDEX, u32Bytes(change.newIndex));
    this.finish();
  }

  /** Gives a link an address (again: it may have it). */
  address(
    what: string,
    index: number,
    address: AddressBytes,
    prefix: number,
    broadcast?: AddressBytes,
  ): void {
    const v6 = address.length === 16;
    this.begin(what, RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE);
    this.u8s(v6 ? AF_INET6 : AF_INET, prefix, v6 ? IFA_F_NODAD : 0, 0);
    this.u32(index);
    this.attribute(IFA_LOCAL, address);
    this.attribute(IFA_ADDRESS, address);
    if (broadcast) this.attribute(IFA_BROADCAST, broadcast);
    this.finish();
  }

  /** Takes an address from a link. */
  removeAddress(
    what: string,
    index: number,
    address: AddressBytes,
    prefix: number,
  ): void {
    this.begin(what, RTM_DELADDR, NLM_F_ACK);
    this.u8s(address.length === 16 ? AF_INET6 : AF_INET, prefix, 0, 0);
    this.u32(index);
    this.attribute(IFA_LOCAL, address);
    this.attribute(IFA_ADDRESS, address);
    this.finish();
  }

  /** Sets the default route of the gateway's family. */
  defaultRoute(what: string, index: number, gateway: AddressBytes): void {
    this.begin(what, RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE);
    this.u8s(gateway.length === 16 ? AF_INET6 : AF_INET, 0, 0, 0);
    this.u8s(RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST);
    this.u32(0);
    this.attribute(RTA_GATEWAY, gateway);
    this.attribute(RTA_OIF, u32Bytes(index));
    this.finish();
  }

  private begin(what: string, type: number, flags: number): void {
    this.start = this.at;
    this.steps.push(what);
    this.u32(0);
    this.u16(type);
    this.u16(NLM_F_REQUEST | flags);
    this.u32(this.steps.length);
    this.u32(0);
  }

  private finish(): void {
    this.view.setUint32(this.start, this.at - this.start, true);
    this.align();
  }

  private attribute(type: number, bytes: number[]): void {
    this.u16(4 + bytes.length);
    this.u16(type);
    for (const byte of bytes) this.bytes[this.at++] = byte;
    this.align();
  }

  private align(): void {
    this.at = (this.at + 3) & ~3;
  }

  /** Four bytes. */
  private u8s(a: number, b: number, c: number, d: number): void {
    this.u32(a | (b << 8) | (c << 16) | (d << 24));
  }

  private u16(value: number): void {
    this.view.setUint16(this.at, value, true);
    this.at += 2;
  }

  private u32(value: number): void {
    this.view.setUint32(this.at, value, true);
    this.at += 4;
  }
}

/** The acknowledgements in what was received. */
export function parseAnswers(
  buffer: ArrayBuffer,
  length: number,
): NetlinkAnswer[] {
  const view = new DataView(buffer, 0, length);
  const answers: NetlinkAnswer[] = [];
  for (let at = 0; at + HEADER <= length;) {
    const size = view.getUint32(at, true);
    if (size < HEADER || at + size > length) break;
    if (view.getUint16(at + 4, true) === NLMSG_ERROR && size >= HEADER + 4)
      answers.push({
        sequence: view.getUint32(at + 8, true),
        errno: 0 - view.getInt32(at + HEADER, true),
      });
    at += (size + 3) & ~3;
  }
  return answers;
}

function u32Bytes(value: number): number[] {
  return [
    value & 0xff,
    (value >> 8) & 0xff,
    (value >> 16) & 0xff,
    (value >>> 24) & 0xff,
  ];
}
