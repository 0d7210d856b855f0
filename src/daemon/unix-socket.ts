/** The daemon's Unix socket: who may use it, and what to do with one that lies there already. */
import {
  chmodSync,
  chownSync,
  lstatSync,
  readFileSync,
  unlinkSync,
} from "node:fs";
import { mkdir } from "node:fs/promises";
import { connect, type Server } from "node:net";
import path from "node:path";
import type { Logger } from "pino";
import { Conflict, SystemError } from "../errors.js";
import { ConfigError } from "./config.js";

/**
 * Connections that may wait to be accepted: beyond, a client's connect fails at once. The kernel cuts it
 * to net.core.somaxconn, as with Docker; node's own is 511.
 */
const BACKLOG = 4096;

/** Groups that get the socket when none is named. */
const DEFAULT_GROUPS = ["docker", "hull"];

/**
 * Listens on a socket that only root and the group may use (0660).
 * @param group name or number; by default the first of DEFAULT_GROUPS that exists
 * @throws {Conflict} somebody listens there
 * @throws {ConfigError} no such group
 * @throws {SystemError} what lies there is no socket
 */
export async function listenUnix(
  server: Server,
  socketPath: string,
  group: string | undefined,
  log: Logger,
): Promise<void> {
  const owner =
    group === undefined
      ? DEFAULT_GROUPS.map(groupId).find((id) => id !== undefined)
      : groupId(group);
  if (group !== undefined && owner === undefined) {
    throw new ConfigError(`invalid value for --group: no group ${group}`);
  }
  await mkdir(path.dirname(socketPath), { recursive: true });
  await removeStale(socketPath);
  // Nobody but us may connect before the group is set. bind(2) happens within listen().
  const mask = process.umask(0o177);
  const listening = new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.once("listening", () => {
      server.off("error", reject);
      resolve();
    });
  });
  try {
    server.listen(socketPath, BACKLOG);
  } finally {
    process.umask(mask);
  }
  await listening;
  if (owner !== undefined) {
    try {
      chownSync(socketPath, -1, owner);
    } catch (error) {
      if (group !== undefined) throw error;
      log.warn({ err: error, socketPath }, "the socket keeps its own group");
    }
  }
  chmodSync(socketPath, 0o660);
}

async function removeStale(socketPath: string): Promise<void> {
  const found = lstatSync(socketPath, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new SystemError(`${socketPath} exists and is not a socket`);
  }
  if (await answers(socketPath)) {
    throw new Conflict(`another process listens on ${socketPath}`);
  }
  unlinkSync(socketPath);
}

function answers(socketPath: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ECONNREFUSED" || error.code === "ENOENT") {
        resolve(false);
      } else {
        reject(new SystemError(`cannot use ${socketPath}: ${error.message}`));
      }
    });
  });
}

/** A group's number by its name in /etc/group; numbers stand for themselves. */
function groupId(group: string): number | undefined {
  if (/^\d+$/.test(group)) return Number(group);
  for (const line of readFileSync("/etc/group", "utf8").split("\n")) {
    const [name, , id] = line.split(":");
    if (name === group && id !== undefined) return Number(id);
  }
  return undefined;
}
