/**
 * The kernel's memory of flows. A client of UDP that goes on sending keeps its flow alive, and with it
 * where the flow went when it began: to a container that is gone, or to the host while there was none.
 * What is remembered of a port is forgotten when the port is published, and when it is taken back.
 */
import { isIPv6 } from "node:net";
import type { Logger } from "pino";
import { hasTool, runTool } from "./command.js";
import type { PublishedPort } from "./index.js";

/** Flows to published UDP ports, whomever they reach. Never throws. */
export async function forgetFlowsTo(
  ports: readonly PublishedPort[],
  log: Logger,
): Promise<void> {
  await forget(
    ports,
    ({ hostIp, hostPort }) => [
      ...["--orig-port-dst", String(hostPort)],
      ...(hostIp === "0.0.0.0" || hostIp === "::"
        ? []
        : ["--orig-dst", hostIp]),
    ],
    log,
  );
}

/** Flows that a container's published UDP ports answer. Never throws. */
export async function forgetFlowsFrom(
  container: {
    address: string;
    address6?: string | undefined;
    ports: readonly PublishedPort[];
  },
  log: Logger,
): Promise<void> {
  const { address, address6, ports } = container;
  await forget(
    ports,
    ({ hostIp, port }) => {
      const from = isIPv6(hostIp) ? address6 : address;
      return from
        ? ["--reply-src", from, "--reply-port-src", String(port)]
        : undefined;
    },
    log,
  );
}

async function forget(
  ports: readonly PublishedPort[],
  flows: (port: PublishedPort) => string[] | undefined,
  log: Logger,
): Promise<void> {
  const udp = ports.filter(({ protocol }) => protocol === "udp");
  if (udp.length === 0) return;
  if (!(await hasTool("conntrack"))) {
    log.warn(
      "the program conntrack is not installed: clients of published UDP ports that go on sending may not reach a container that was started anew",
    );
    return;
  }
  for (const port of udp) {
    const which = flows(port);
    if (!which) continue;
    const family = isIPv6(port.hostIp) ? "ipv6" : "ipv4";
    await runTool("conntrack", [
      ...["-D", "-f", family, "-p", "udp"],
      ...which,
    ]).catch((error: Error) => {
      // That there is none is an error to conntrack.
      if (/\b0 flow entries/.test(error.message)) return;
      log.warn({ err: error }, "cannot forget flows of a published port");
    });
  }
}
