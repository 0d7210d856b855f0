/** Ports of the host that a thread of the daemon forwards: those of IPv6 addresses. */
import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import type { Logger } from "pino";
import type { FromWorker, ToWorker } from "./forwarder-worker.js";
import type { ForwardRequest } from "./forwarding.js";
import { refusal, type Reservation } from "./port-reservation.js";

/** The thread is there from the first port on. It has one event loop, and the sockets, to itself. */
export class Forwarder {
  readonly #log: Logger;
  #worker: Worker | undefined;
  #lastId = 0;
  readonly #open = new Map<number, ForwardRequest>();
  readonly #waiting = new Map<number, (answer: FromWorker) => void>();

  constructor(log: Logger) {
    this.#log = log;
  }

  /**
   * Listens, and passes on what comes, until the reservation is closed.
   * @throws {PortRefused} another process has the port, or the host does not have the address
   */
  async open(request: ForwardRequest): Promise<Reservation> {
    const id = ++this.#lastId;
    const { error } = await this.#ask({ id, open: request });
    if (error) {
      const { protocol, host, port } = request;
      throw refusal(error, protocol, host, port);
    }
    this.#open.set(id, request);
    return {
      close: () => {
        this.#open.delete(id);
        return this.#ask({ id }).then(() => undefined);
      },
    };
  }

  /** Ends the thread, and every connection with it. */
  async close(): Promise<void> {
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.terminate();
  }

  #ask(message: ToWorker): Promise<FromWorker> {
    return new Promise((resolve) => {
      this.#waiting.set(message.id, resolve);
      (this.#worker ??= this.#start()).postMessage(message);
    });
  }

  #start(): Worker {
    // As this file: compiled, or not.
    const file = `./forwarder-worker${extname(import.meta.url)}`;
    const worker = new Worker(new URL(file, import.meta.url));
    worker.unref();
    worker.on("message", (answer: FromWorker) => {
      this.#waiting.get(answer.id)?.(answer);
      this.#waiting.delete(answer.id);
    });
    worker.on("error", (error) => {
      this.#log.error({ err: error }, "the thread that forwards IPv6 ports");
    });
    worker.on("exit", () => {
      const fell = this.#worker === worker;
      if (fell) this.#worker = undefined;
      const message = "the thread that forwards has ended";
      for (const [id, resolve] of this.#waiting) {
        resolve({ id, error: { code: "", message } });
      }
      this.#waiting.clear();
      if (!fell) return;
      // What was open is opened again: the daemon goes on, and so must the ports.
      for (const [id, open] of this.#open) {
        void this.#ask({ id, open }).then(({ error }) => {
          if (error) this.#log.error({ err: error, ...open }, "port lost");
        });
      }
    });
    return worker;
  }
}
