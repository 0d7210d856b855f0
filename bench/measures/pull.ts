/** Pull and unpack of one image, beside the tools that do the same without an engine. */
import { join } from "node:path";
import { sideBySide, type Bench, type Measure } from "../bench.js";
import type { Engine } from "../engines/engine.js";
import { findProgram, run, time } from "../processes.js";

/** These take seconds each: fewer samples say enough. */
const REPEATS = 5;
const MB = 1e6;

export const pullMeasure: Measure = {
  name: "pull",
  async run(bench) {
    const { large, largeImage } = bench.images;
    const compressed = (largeImage.compressedBytes / MB).toFixed(0);
    const unpacked = (largeImage.unpackedBytes / MB).toFixed(0);
    const peers = [...tools(bench), ...bench.peers];
    const rate = (ms: number) => largeImage.compressedBytes / MB / (ms / 1000);
    return sideBySide(
      bench,
      {
        name: `pull and unpack, ${compressed} MB compressed, ${unpacked} MB unpacked, from a registry on this host`,
        unit: "MB/s of compressed data",
        repeats: REPEATS,
      },
      peers,
      async (engine) => {
        const ms = await time(engine.pull(large), { env: engine.environment });
        await run(engine.cli("rmi", large), { env: engine.environment });
        return rate(ms);
      },
    );
  },
};

/** skopeo and umoci, as an engine of two commands. */
function tools(bench: Bench): Engine[] {
  if (!findProgram("skopeo") || !findProgram("umoci")) {
    bench.say("skipped: skopeo and umoci (not installed)");
    return [];
  }
  if (process.getuid?.() !== 0) {
    bench.say("skipped: umoci unpack (needs root)");
    return [];
  }
  const directory = join(bench.scratch.directory, "umoci");
  const script = [
    `mkdir -p ${directory}`,
    `skopeo --insecure-policy copy --quiet --src-tls-verify=false docker://$1 oci:${directory}/layout:image`,
    `umoci unpack --image ${directory}/layout:image ${directory}/bundle >/dev/null`,
  ].join(" && ");
  return [
    {
      name: "skopeo copy + umoci unpack",
      environment: {},
      pull: (reference) =>
        bench.space.command(["sh", "-c", script, "sh", reference]),
      cli: () => ["rm", "-rf", directory],
    },
  ];
}
