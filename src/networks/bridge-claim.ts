/** Keeps two daemons off one bridge. */
import { createServer, type Server } from "node:net";
import { Unavailable } from "../errors.js";

/**
 * Claims a bridge's name until the claim is closed or the process ends, however it ends. An abstract
 * socket is as wide as a network namespace, and so are names of devices.
 * @throws {Unavailable} another process has it
 */
export function claimBridge(name: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.once("error", () => {
      reject(
        new Unavailable(
          `the bridge ${name} belongs to another daemon that is running; give each daemon a bridge of its own`,
        ),
      );
    });
    server.listen(`\0hull/bridge/${name}`, () => {
      server.on("error", () => undefined);
      server.unref();
      resolve(server);
    });
  });
}
