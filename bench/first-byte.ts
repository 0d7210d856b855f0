/** From the API's start to the first byte of output, at a client that was attached before. */
import type { StartReport } from "../src/containers/start-trace.js";
import type { EngineApi } from "./engine-api.js";

export interface FirstByte {
  ms: number;
  /** hull's own account of it. */
  trace: StartReport | undefined;
}

/**
 * Makes a container, starts it, and removes it when it has ended.
 * @param before what is to happen right before the start
 */
export async function firstByte(
  api: EngineApi,
  image: string,
  traced: boolean,
  before?: () => Promise<unknown>,
): Promise<FirstByte> {
  const id = await api.create(image, ["echo", "ready"]);
  const { socket, head } = await api.attach(id, false);
  const seen = new Promise<number>((resolve, reject) => {
    if (head.length > 0) {
      resolve(performance.now());
    }
    socket.once("data", () => resolve(performance.now()));
    socket.once("close", () => reject(new Error("no output came")));
  });
  await before?.();
  const begin = performance.now();
  const [at] = await Promise.all([seen, api.start(id)]);
  await api.wait(id);
  const trace = traced ? await api.trace(id) : undefined;
  socket.destroy();
  await api.remove(id);
  return { ms: at - begin, trace };
}
