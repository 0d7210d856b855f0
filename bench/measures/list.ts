/** `docker ps -a` with very many containers, none of which runs. */
import { sideBySide, type Measure } from "../bench.js";
import { timeCli } from "../engines/engine.js";

const CONTAINERS = 1000;
/** So many are made, or removed, at a time. */
const AT_ONCE = 8;

export const listMeasure: Measure = {
  name: "ps",
  async run(bench) {
    const peers = bench.peers.filter(({ api }) => api);
    const engines = [bench.hull, ...peers];
    const made = new Map<string, string[]>();
    for (const { name, api } of engines) {
      if (!api) throw new Error(`${name} has no API`);
      bench.say(`making ${CONTAINERS} containers: ${name}`);
      const ids: string[] = [];
      await atOnce(Array.from({ length: CONTAINERS }), async () => {
        ids.push(await api.create(bench.images.small, ["true"]));
      });
      made.set(name, ids);
    }
    const rows = await sideBySide(
      bench,
      {
        name: `\`docker ps -a\` with ${CONTAINERS.toLocaleString("en")} containers that do not run`,
        unit: "ms",
      },
      peers,
      (engine) => timeCli(engine, ["ps", "--all"]),
    );
    for (const { name, api } of engines) {
      await atOnce(made.get(name) ?? [], async (id) => api?.remove(id));
    }
    return rows;
  },
};

async function atOnce<T>(
  items: readonly T[],
  work: (item: T) => Promise<unknown>,
): Promise<void> {
  const left = items.values();
  const worker = async () => {
    for (const item of left) await work(item);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}
