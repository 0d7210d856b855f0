/** HTTP requests and TCP throughput, from the host to a container and between two. */
import { existsSync } from "node:fs";
import { sideBySide, type Bench, type Measure } from "../bench.js";
import type { Engine } from "../engines/engine.js";
import { findProgram, run } from "../processes.js";
import type { Row } from "../rows.js";

const SERVER = "bench-server";
const CLIENT = "bench-client";
const NETWORK = "bench-network";
/** Of each sample, after a second that does not count. */
const SECONDS = 3;
const CONNECTIONS = 16;
/** These take seconds each: fewer samples say enough. */
const REPEATS = 5;
const IPERF = 5201;
const BRIDGE_FILTER = "/proc/sys/net/bridge/bridge-nf-call-iptables";

export const networkMeasure: Measure = {
  name: "network",
  async run(bench) {
    const image = await bench.images.tools();
    const engines = [bench.hull, ...peersOf(bench)];
    if (existsSync(BRIDGE_FILTER)) {
      // A peer's rules would see, and drop, what hull's bridges pass on.
      await run(bench.space.command(["sh", "-c", `echo 0 >${BRIDGE_FILTER}`]));
    }
    for (const engine of engines) await start(engine, image);
    try {
      return await rows(bench);
    } finally {
      for (const engine of engines) {
        await cli(engine, "rm", "--force", SERVER, CLIENT);
        await cli(engine, "network", "rm", NETWORK).catch(() => undefined);
      }
    }
  },
};

/** Engines with the same networks and the same API. */
function peersOf({ peers }: Bench): Engine[] {
  return peers.filter(({ api }) => api);
}

function cli(engine: Engine, ...args: string[]): Promise<string> {
  return run(engine.cli(...args), { env: engine.environment });
}

async function start(engine: Engine, image: string): Promise<void> {
  await run(engine.pull(image), { env: engine.environment });
  await cli(engine, "network", "create", NETWORK);
  await cli(
    engine,
    ...["run", "--detach", "--name", SERVER, "--network", NETWORK],
    ...["-p", "127.0.0.1::80", "-p", `127.0.0.1::${IPERF}`],
    ...[image, "sh", "-c", "iperf3 --server & exec nginx"],
  );
  await cli(
    engine,
    ...["run", "--detach", "--name", CLIENT, "--network", NETWORK],
    ...[image, "sleep", "100000"],
  );
}

async function rows(bench: Bench): Promise<Row[]> {
  /** Runs a client on the host, or in the other container, against the server. */
  const ask = async (
    engine: Engine,
    from: "host" | "container",
    port: number,
    client: (host: string, port: string) => string[],
  ): Promise<string> => {
    if (from === "container") {
      return cli(engine, "exec", CLIENT, ...client(SERVER, String(port)));
    }
    const published = await cli(engine, "port", SERVER, `${port}/tcp`);
    const [host = "", chosen = ""] = published.trim().split(":");
    const [name = "", ...args] = client(host, chosen);
    return run(bench.space.command([findProgram(name) ?? name, ...args]));
  };
  const requests = async (engine: Engine, from: "host" | "container") => {
    const load = (host: string, port: string) => [
      ...["wrk", "-t", "1", "-c", String(CONNECTIONS), "-d", `${SECONDS}s`],
      `http://${host}:${port}/`,
    ];
    const said = await ask(engine, from, 80, load);
    const rate = /^Requests\/sec:\s+([\d.]+)/m.exec(said)?.[1];
    if (rate === undefined || /Non-2xx/.test(said)) {
      throw new Error(`wrk said: ${said}`);
    }
    return Number(rate);
  };
  const throughput = async (
    engine: Engine,
    from: "host" | "container",
    reverse: boolean,
  ) => {
    const said = await ask(engine, from, IPERF, (host, port) => [
      ...["iperf3", "--client", host, "--port", port, "--json"],
      ...["--time", String(SECONDS), "--omit", "1"],
      ...(reverse ? ["--reverse"] : []),
    ]);
    const { end } = JSON.parse(said) as {
      end: { sum_received: { bits_per_second: number } };
    };
    return end.sum_received.bits_per_second / 8e6;
  };
  const figure = (
    name: string,
    unit: string,
    sample: (engine: Engine) => Promise<number>,
  ) =>
    sideBySide(
      bench,
      { name, unit, repeats: Math.min(REPEATS, bench.repeats) },
      peersOf(bench),
      sample,
    );
  return [
    ...(await figure("HTTP, host → container", "requests/s", (engine) =>
      requests(engine, "host"),
    )),
    ...(await figure("HTTP, container → container", "requests/s", (engine) =>
      requests(engine, "container"),
    )),
    ...(await figure("TCP, host → container", "MB/s", (engine) =>
      throughput(engine, "host", false),
    )),
    ...(await figure("TCP, container → host", "MB/s", (engine) =>
      throughput(engine, "host", true),
    )),
    ...(await figure("TCP, container → container", "MB/s", (engine) =>
      throughput(engine, "container", false),
    )),
  ];
}
