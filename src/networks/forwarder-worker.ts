/** The thread that forwards: what clients send does not wait for the daemon's other work, nor hold it up. */
import { parentPort } from "node:worker_threads";
import { forward, type Forward, type ForwardRequest } from "./forwarding.js";

/** From the daemon; `open` absent: close. */
export interface ToWorker {
  id: number;
  open?: ForwardRequest;
}

export interface FromWorker {
  id: number;
  error?: { code: string; message: string };
}

const forwards = new Map<number, Promise<Forward>>();

parentPort?.on("message", ({ id, open }: ToWorker) => {
  const answer = (error?: FromWorker["error"]) =>
    parentPort?.postMessage({ id, ...(error && { error }) });
  if (open) {
    const opened = forward(open);
    forwards.set(id, opened);
    opened.then(
      () => answer(),
      (error: NodeJS.ErrnoException) => {
        forwards.delete(id);
        answer({ code: error.code ?? "", message: error.message });
      },
    );
    return;
  }
  const opened = forwards.get(id);
  forwards.delete(id);
  opened
    ?.then((one) => one.close())
    .then(
      () => answer(),
      () => answer(),
    );
});
