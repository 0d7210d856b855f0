/** How fast bytes go through a container's streams. */
import { once } from "node:events";
import { sideBySide, type Measure } from "../bench.js";
import type { EngineApi } from "../engine-api.js";
import type { Engine } from "../engines/engine.js";
import { LINES_BYTES, LINES_PATH } from "../images.js";

const COPIES = 4;
const BYTES = COPIES * LINES_BYTES;
const MB = 1e6;
/** These take seconds each: fewer samples say enough. */
const REPEATS = 5;
/** Reads the text once, so that the disk is not what is measured, and then writes it several times. */
const WRITER = `cat ${LINES_PATH} >/dev/null; for i in $(seq ${COPIES}); do cat ${LINES_PATH}; done`;
const READER = `head -c ${BYTES} >/dev/null; echo done`;

export const streamsMeasure: Measure = {
  name: "streams",
  async run(bench) {
    const peers = bench.peers.filter(({ api }) => api);
    const { small } = bench.images;
    const each =
      (measure: (api: EngineApi, image: string) => Promise<number>) =>
      (engine: Engine) => {
        if (!engine.api) {
          throw new Error(`${engine.name} has no API`);
        }
        return measure(engine.api, small);
      };
    const figure = (name: string) => ({ name, unit: "MB/s", repeats: REPEATS });
    return [
      ...(await sideBySide(
        bench,
        figure("stdout → attach, with the json-file log written"),
        peers,
        each(attachRate),
      )),
      ...(await sideBySide(
        bench,
        figure("`docker logs` of what was written"),
        peers,
        each(logsRate),
      )),
      ...(await sideBySide(
        bench,
        figure("attach → stdin"),
        peers,
        each(stdinRate),
      )),
    ];
  },
};

/** MB/s from the first to the last byte of output. */
async function attachRate(api: EngineApi, image: string): Promise<number> {
  const id = await api.create(image, ["sh", "-c", WRITER]);
  const { socket, head } = await api.attach(id, false);
  let bytes = head.length;
  let begin: number | undefined;
  let end = 0;
  socket.on("data", (chunk: Buffer) => {
    end = performance.now();
    begin ??= end;
    bytes += chunk.length;
  });
  const closed = once(socket, "close");
  await api.start(id);
  await closed;
  await api.remove(id);
  if (bytes < BYTES || begin === undefined) {
    throw new Error(`${bytes} of ${BYTES} bytes came`);
  }
  return BYTES / MB / ((end - begin) / 1000);
}

/** MB/s of the log of a container that has ended. */
async function logsRate(api: EngineApi, image: string): Promise<number> {
  const id = await api.create(image, ["sh", "-c", WRITER]);
  await api.start(id);
  await api.wait(id);
  const begin = performance.now();
  const bytes = await api.logs(id);
  const seconds = (performance.now() - begin) / 1000;
  await api.remove(id);
  if (bytes < BYTES) {
    throw new Error(`${bytes} of ${BYTES} bytes came`);
  }
  return BYTES / MB / seconds;
}

/** MB/s from the first byte written to the word of the program that it has read the last one. */
async function stdinRate(api: EngineApi, image: string): Promise<number> {
  const id = await api.create(image, ["sh", "-c", READER], {
    OpenStdin: true,
    StdinOnce: true,
    AttachStdin: true,
  });
  const { socket } = await api.attach(id, true);
  await api.start(id);
  const done = once(socket, "data");
  const chunk = Buffer.alloc(64 * 1024, "0123456789abcde\n");
  const begin = performance.now();
  for (let sent = 0; sent < BYTES; sent += chunk.length) {
    if (!socket.write(chunk)) {
      await once(socket, "drain");
    }
  }
  await done;
  const seconds = (performance.now() - begin) / 1000;
  socket.destroy();
  await api.remove(id);
  return BYTES / MB / seconds;
}
