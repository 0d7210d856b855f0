import type { Socket } from "node:net";
import { constants } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { getSystemErrorName } from "node:util";
import split2 from "split2";
import { z } from "zod";
import { SystemError, Unavailable } from "../../errors.js";
import type { SendFiles } from "./jail.js";

/** Longest line QEMU may send, in characters. */
const MAX_LINE = 1024 * 1024;
const DEFAULT_TIMEOUT_MS = 5000;

const greetingShape = z.object({ QMP: z.object({ version: z.unknown() }) });
const eventShape = z.object({
  event: z.string(),
  data: z.record(z.string(), z.unknown()).optional(),
});
const errorShape = z.object({
  id: z.int().optional(),
  error: z.object({ class: z.string(), desc: z.string() }),
});
const answerShape = z.object({ id: z.int(), return: z.unknown() });

/**
 * By what tells its kind: to try one shape after the other would cost most where most comes, and starts wait for
 * answers.
 * @throws it is none
 */
function parseMessage(line: string) {
  const message = z.looseObject({}).parse(JSON.parse(line));
  if ("return" in message) return answerShape.parse(message);
  if ("event" in message) return eventShape.parse(message);
  if ("error" in message) return errorShape.parse(message);
  return greetingShape.parse(message);
}

/** An event of QEMU, e.g. SHUTDOWN (qapi/run-state.json). */
export interface QmpEvent {
  name: string;
  data: Record<string, unknown>;
}

interface Pending {
  command: string;
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
  timer: NodeJS.Timeout;
}

/** QEMU refused a command. */
export class QmpError extends SystemError {
  readonly errorClass: string;

  constructor(command: string, errorClass: string, description: string) {
    super(`QEMU refused ${command}: ${description}`);
    this.errorClass = errorClass;
  }
}

/** A QEMU Machine Protocol session (docs/interop/qmp-spec.rst) over a connected socket. */
export class QmpClient {
  /** Resolves when the session is over, whoever ended it. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #sendFiles: SendFiles | undefined;
  readonly #pending = new Map<number, Pending>();
  #listeners: ((event: QmpEvent) => void)[] = [];
  #nextId = 1;
  #failure: Unavailable | undefined;
  #resolveClosed!: () => void;
  #greeted!: () => void;
  #greetingFailed!: (error: Error) => void;
  readonly #greeting: Promise<void>;

  private constructor(socket: Socket, sendFiles: SendFiles | undefined) {
    this.#sendFiles = sendFiles;
    this.closed = new Promise((resolve) => (this.#resolveClosed = resolve));
    this.#greeting = new Promise((resolve, reject) => {
      this.#greeted = resolve;
      this.#greetingFailed = reject;
    });
    this.#greeting.catch(() => undefined);
    this.#socket = socket;
    const lines = split2({ maxLength: MAX_LINE });
    lines.on("data", (line: string) => this.#receive(line));
    lines.on("error", (error) => this.#end(error.message));
    socket.on("error", (error) => this.#end(error.message));
    socket.on("close", () => this.#end("QEMU closed the connection"));
    socket.pipe(lines);
  }

  /**
   * Waits for QEMU's greeting (it comes when QEMU is set up) and enters command mode.
   * @param sendFiles for `executeWith`
   * @throws {Unavailable} the connection ended before
   */
  static async open(
    socket: Socket,
    timeoutMs = DEFAULT_TIMEOUT_MS,
    sendFiles?: SendFiles,
  ): Promise<QmpClient> {
    const client = new QmpClient(socket, sendFiles);
    const timer = setTimeout(
      () => client.#end(`QEMU did not greet within ${timeoutMs} ms`),
      timeoutMs,
    );
    try {
      await client.#greeting;
      await client.execute("qmp_capabilities", {}, timeoutMs);
    } catch (error) {
      // QEMU takes one connection at a time: the next one is not to wait for the end of this one.
      client.close();
      throw error;
    } finally {
      clearTimeout(timer);
    }
    return client;
  }

  /** @returns takes the listener away */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.push(listener);
    return () => {
      this.#listeners = this.#listeners.filter((other) => other !== listener);
    };
  }

  /**
   * Runs a command and resolves with its unchecked return value.
   * @throws {QmpError} QEMU refused it
   * @throws {Unavailable} the session is over, or there was no answer in time
   */
  execute(
    command: string,
    args: Record<string, unknown> = {},
    timeoutMs = DEFAULT_TIMEOUT_MS,
  ): Promise<unknown> {
    if (this.#failure) return Promise.reject(this.#failure);
    const id = this.#nextId++;
    this.#socket.write(commandLine(id, command, args));
    return this.#answer(id, command, timeoutMs);
  }

  /**
   * Like `execute`, for a command that takes an open file along.
   * @param file its descriptor, to be kept open until this resolves
   */
  async executeWith(
    file: number,
    command: string,
    args: Record<string, unknown> = {},
  ): Promise<unknown> {
    if (!this.#sendFiles) {
      throw new SystemError("this session with QEMU takes no files");
    }
    for (;;) {
      if (this.#failure) throw this.#failure;
      // What node has not written yet would come behind.
      if (this.#socket.writableLength === 0) {
        const id = this.#nextId++;
        const line = Buffer.from(commandLine(id, command, args));
        const sent = this.#sendFiles(descriptorOf(this.#socket), line, [file]);
        if (sent > 0) {
          if (sent < line.length) this.#socket.write(line.subarray(sent));
          return this.#answer(id, command, DEFAULT_TIMEOUT_MS);
        }
        if (-sent !== constants.errno.EAGAIN) {
          throw new Unavailable(
            `a file cannot be handed to QEMU: ${getSystemErrorName(sent)}`,
          );
        }
      }
      await sleep(1);
    }
  }

  #answer(id: number, command: string, timeoutMs: number): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(
          new Unavailable(
            `QEMU did not answer ${command} within ${timeoutMs} ms`,
          ),
        );
      }, timeoutMs);
      this.#pending.set(id, { command, resolve, reject, timer });
    });
  }

  close(): void {
    this.#end("the session was closed");
  }

  #receive(line: string): void {
    if (this.#failure || line === "") return;
    let message: ReturnType<typeof parseMessage>;
    try {
      message = parseMessage(line);
    } catch {
      this.#end("QEMU sent something that is not QMP");
      return;
    }
    if ("QMP" in message) {
      this.#greeted();
    } else if ("event" in message) {
      const event = { name: message.event, data: message.data ?? {} };
      for (const listener of this.#listeners) listener(event);
    } else {
      const pending = this.#pending.get(message.id ?? -1);
      // Without a pending request it came after the request's time-out.
      if (!pending || message.id === undefined) return;
      this.#pending.delete(message.id);
      clearTimeout(pending.timer);
      if ("error" in message) {
        const { class: errorClass, desc } = message.error;
        pending.reject(new QmpError(pending.command, errorClass, desc));
      } else {
        pending.resolve(message.return);
      }
    }
  }

  #end(reason: string): void {
    if (this.#failure) return;
    this.#failure = new Unavailable(`no connection to QEMU: ${reason}`);
    this.#socket.destroy();
    this.#greetingFailed(this.#failure);
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(this.#failure);
    }
    this.#pending.clear();
    this.#resolveClosed();
  }
}

function commandLine(
  id: number,
  command: string,
  args: Record<string, unknown>,
): string {
  return JSON.stringify({ execute: command, arguments: args, id }) + "\n";
}

/** Node tells the number of a socket's descriptor by no documented way. */
function descriptorOf(socket: Socket): number {
  const { _handle: handle } = socket as unknown as {
    _handle?: { fd?: unknown };
  };
  if (typeof handle?.fd !== "number" || handle.fd < 0) {
    throw new SystemError("the connection to QEMU has no descriptor");
  }
  return handle.fd;
}
