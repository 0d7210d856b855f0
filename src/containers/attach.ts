/** Joins a client to the streams of a container's own process, or of an exec. */
import type { Readable } from "node:stream";
import type { Container } from "./container.js";
import { DetachFilter } from "./detach-keys.js";
import { timestamp } from "./log/json-file.js";
import { readLog } from "./log/reader.js";
import type { Stdio } from "./stdio.js";

/** The far end of an attached connection, whatever carries it. */
export interface Client {
  /** Ends when the client half-closes or goes away; never emits an error. */
  readonly stdin: Readable;
  /** Resolves when the client can take more: false when it is gone. */
  stdout(chunk: Uint8Array): Promise<boolean>;
  stderr(chunk: Uint8Array): Promise<boolean>;
  end(): void;
  readonly signal: AbortSignal;
  readonly closed: Promise<void>;
}

export interface AttachOptions {
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  /** Stay for what comes. */
  stream: boolean;
  /** Begin with what the log has. */
  logs: boolean;
  detachKeys: Buffer;
}

export interface Join {
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  /** The client's end-of-file is the process's. */
  closeStdin: boolean;
  /** With a terminal, the keys that detach. */
  detachKeys: Buffer | undefined;
  /** Output waits for this. */
  after?: Promise<void>;
}

/**
 * `POST /containers/{id}/attach`. May come before the container is started: it then joins the run
 * that is to come. Resolves when the client is gone.
 */
export async function attachContainer(
  container: Container,
  client: Client,
  options: AttachOptions,
): Promise<"detached" | "closed"> {
  const { config } = container.record;
  const replayed = options.logs
    ? replay(container, client, options)
    : Promise.resolve();
  if (!options.stream) {
    await replayed;
    client.end();
    await client.closed;
    return "closed";
  }
  return joinClient(container.stdio, client, {
    ...options,
    stdin: options.stdin && config.OpenStdin,
    closeStdin: config.StdinOnce && !config.Tty,
    detachKeys: config.Tty ? options.detachKeys : undefined,
    after: replayed,
  });
}

/** Joins a client to a process's streams until either is over, or the client detaches. */
export async function joinClient(
  stdio: Stdio,
  client: Client,
  join: Join,
): Promise<"detached" | "closed"> {
  const leave = stdio.attach({
    stdout: join.stdout,
    stderr: join.stderr,
    write: async (stream, chunk) => {
      await join.after;
      await client[stream](chunk);
    },
    end: () => client.end(),
  });
  void client.closed.then(leave);
  if (join.stdin && (await copyStdin(stdio, client, join))) {
    leave();
    client.end();
    return "detached";
  }
  await client.closed;
  return "closed";
}

/** @returns whether the client typed the keys that detach */
async function copyStdin(
  stdio: Stdio,
  client: Client,
  join: Join,
): Promise<boolean> {
  const filter = join.detachKeys && new DetachFilter(join.detachKeys);
  const input = await Promise.race([
    stdio.stdin,
    client.closed.then(() => undefined),
  ]);
  for await (const chunk of client.stdin as AsyncIterable<Buffer>) {
    const { bytes, detach } = filter?.pass(chunk) ?? {
      bytes: chunk,
      detach: false,
    };
    if (bytes.length > 0) {
      try {
        await input?.write(bytes);
      } catch {
        // The machine is gone; what it means is somebody else's to say.
        return false;
      }
    }
    if (detach) return true;
  }
  if (join.closeStdin) input?.end();
  return false;
}

async function replay(
  container: Container,
  client: Client,
  options: AttachOptions,
): Promise<void> {
  const records = readLog(
    container.log,
    { follow: false, until: timestamp() },
    client.signal,
  );
  for await (const { log, stream } of records) {
    if (options[stream]) await client[stream](Buffer.from(log));
  }
}
