/** Which ports of the host are given to containers. */
import { readFile } from "node:fs/promises";
import { isIPv4, isIPv6 } from "node:net";
import { SystemError } from "../errors.js";
import type { PortProtocol, PortRequest } from "./index.js";
import {
  PortRefused,
  reservePort,
  type Reservation,
} from "./port-reservation.js";

const RANGE_FILE = "/proc/sys/net/ipv4/ip_local_port_range";
/** The kernel's own default. */
const DEFAULT_RANGE = { first: 32768, last: 60999 };

/** A port of the host that a container has, at one address or more. */
export interface Allocation {
  protocol: PortProtocol;
  hostPort: number;
  hostIps: string[];
}

/** Binds a port: an address's way of keeping it. @throws {PortRefused} it cannot be had */
export type Reserve = typeof reservePort;

interface Held extends Allocation {
  reservations: Reservation[];
}

export class PortAllocator {
  readonly #held = new Set<Held>();
  /** The port that was chosen last: the next choice goes on behind it, as Docker's does. */
  #last = 0;

  /**
   * Takes the port that was asked for, the first free one of a range, or one of the host's range of
   * ephemeral ports.
   * @param hostIps addresses at which it must be free
   * @throws {SystemError} a container or another process has it, or the host has no such address
   */
  async allocate(
    request: Pick<PortRequest, "protocol" | "hostPorts">,
    hostIps: string[],
    reserve: Reserve = reservePort,
  ): Promise<Allocation> {
    const { protocol, hostPorts } = request;
    const chosen = hostPorts.first === 0;
    const range = chosen ? await ephemeralRange() : hostPorts;
    const count = range.last - range.first + 1;
    let refusal: Error | undefined;
    for (let step = 0; step < count; step++) {
      const hostPort = chosen
        ? range.first +
          ((Math.max(this.#last - range.first + 1, 0) + step) % count)
        : range.first + step;
      try {
        const held = await this.#take({ protocol, hostPort, hostIps }, reserve);
        if (chosen) this.#last = hostPort;
        return held;
      } catch (error) {
        if (!(error instanceof PortRefused)) throw error;
        refusal = error;
        if (!error.inUse) break;
      }
    }
    if (count > 1 && refusal instanceof PortRefused && refusal.inUse) {
      throw new SystemError("all ports are allocated");
    }
    throw refusal ?? new SystemError("all ports are allocated");
  }

  /** Takes note of a port that an earlier daemon gave. */
  note(allocation: Allocation): Allocation {
    const held: Held = { ...allocation, reservations: [] };
    this.#held.add(held);
    return held;
  }

  /**
   * Reserves a port that was noted.
   * @throws {PortRefused} another process has taken it since
   */
  async reserve(
    allocation: Allocation,
    reserve: Reserve = reservePort,
  ): Promise<void> {
    await reserveAll(allocation as Held, reserve);
  }

  /** Gives a port back; `allocation` is the very object that was handed out. */
  async release(allocation: Allocation): Promise<void> {
    const held = allocation as Held;
    if (!this.#held.has(held)) return;
    await closeAll(held);
    this.#held.delete(held);
  }

  /**
   * Lets another process bind a port that stays its container's, at its IPv4 addresses: QEMU does where
   * it forwards.
   */
  async unbind(allocation: Allocation): Promise<void> {
    const { hostIps, reservations } = allocation as Held;
    const ours = reservations.filter((_, at) => isIPv4(hostIps[at] ?? ""));
    await Promise.all(ours.map((one) => one.close()));
  }

  /** Lets go of all ports. What is published stays so: the kernel forwards. */
  async close(): Promise<void> {
    const all = [...this.#held];
    this.#held.clear();
    await Promise.all(all.map(closeAll));
  }

  async #take(allocation: Allocation, reserve: Reserve): Promise<Held> {
    for (const hostIp of allocation.hostIps) {
      if ([...this.#held].some((held) => collides(held, allocation, hostIp))) {
        throw new PortRefused(
          `Bind for ${hostIp}:${allocation.hostPort} failed: port is already allocated`,
          true,
        );
      }
    }
    const held: Held = { ...allocation, reservations: [] };
    // Taken from now on: the kernel is asked while others may ask us.
    this.#held.add(held);
    try {
      await reserveAll(held, reserve);
    } catch (error) {
      await this.release(held);
      throw error;
    }
    return held;
  }
}

async function reserveAll(held: Held, reserve: Reserve): Promise<void> {
  for (const hostIp of held.hostIps) {
    held.reservations.push(await reserve(held.protocol, hostIp, held.hostPort));
  }
}

async function closeAll(held: Held): Promise<void> {
  await Promise.all(held.reservations.splice(0).map((one) => one.close()));
}

/** Same protocol and port, at the same address or with one of the two at all addresses of the family. */
function collides(held: Held, wanted: Allocation, hostIp: string): boolean {
  return (
    held.protocol === wanted.protocol &&
    held.hostPort === wanted.hostPort &&
    held.hostIps.some(
      (other) =>
        isIPv6(other) === isIPv6(hostIp) &&
        (other === hostIp || isWildcard(other) || isWildcard(hostIp)),
    )
  );
}

export function isWildcard(hostIp: string): boolean {
  return hostIp === "0.0.0.0" || hostIp === "::";
}

async function ephemeralRange(): Promise<{ first: number; last: number }> {
  const text = await readFile(RANGE_FILE, "utf8").catch(() => "");
  const match = /^(\d+)\s+(\d+)/.exec(text);
  return match
    ? { first: Number(match[1]), last: Number(match[2]) }
    : DEFAULT_RANGE;
}
