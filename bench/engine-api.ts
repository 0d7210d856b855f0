/** As much of the Engine API as is measured, over a Unix socket. */
import { request, type IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { StartReport } from "../src/containers/start-trace.js";

/** A container's streams over a hijacked connection. */
export interface Attached {
  socket: Socket;
  /** Bytes that came with the answer's head. */
  head: Buffer;
}

export class EngineApi {
  constructor(readonly socketPath: string) {}

  async ping(): Promise<void> {
    await this.#request("GET", "/_ping");
  }

  /** @returns its ID */
  async create(
    image: string,
    command: string[],
    more: Record<string, unknown> = {},
  ): Promise<string> {
    const text = await this.#request("POST", "/containers/create", {
      Image: image,
      Cmd: command,
      AttachStdout: true,
      AttachStderr: true,
      ...more,
    });
    return (JSON.parse(text) as { Id: string }).Id;
  }

  async start(id: string): Promise<void> {
    await this.#request("POST", `/containers/${id}/start`);
  }

  /** @returns the exit code */
  async wait(id: string): Promise<number> {
    const text = await this.#request("POST", `/containers/${id}/wait`);
    return (JSON.parse(text) as { StatusCode: number }).StatusCode;
  }

  /** A program's process on the host while it runs; hull: its machine's. */
  async pid(id: string): Promise<number> {
    const text = await this.#request("GET", `/containers/${id}/json`);
    return (JSON.parse(text) as { State: { Pid: number } }).State.Pid;
  }

  /** hull: where the time of a container's start went. */
  async trace(id: string): Promise<StartReport> {
    const text = await this.#request(
      "GET",
      `/hull/containers/${id}/start-trace`,
    );
    return JSON.parse(text) as StartReport;
  }

  /** hull: how many machines of its pool stand ready. */
  warmMachines(): Promise<number> {
    return this.#metric("hull_warm_machines");
  }

  /** hull: how many machines stand still for others to be forked from them. */
  zygotes(): Promise<number> {
    return this.#metric("hull_zygotes");
  }

  async #metric(name: string): Promise<number> {
    const text = await this.#request("GET", "/metrics");
    return Number(new RegExp(`^${name} (\\d+)$`, "m").exec(text)?.[1] ?? 0);
  }

  /** hull: whether machines are emulated here. */
  async isEmulated(): Promise<boolean> {
    const text = await this.#request("GET", "/info");
    const { SecurityOptions } = JSON.parse(text) as {
      SecurityOptions: string[];
    };
    return SecurityOptions.some((one) => one.includes("accelerator=tcg"));
  }

  async remove(id: string): Promise<void> {
    await this.#request("DELETE", `/containers/${id}?force=1`);
  }

  /** Every container's ID. */
  async list(): Promise<string[]> {
    const text = await this.#request("GET", "/containers/json?all=1");
    return (JSON.parse(text) as { Id: string }[]).map(({ Id }) => Id);
  }

  /** All of a container's log, as multiplexed bytes; resolves with their number. */
  async logs(id: string): Promise<number> {
    const response = await this.#open("GET", `/containers/${id}/logs?stdout=1`);
    let bytes = 0;
    for await (const chunk of response) bytes += (chunk as Buffer).length;
    return bytes;
  }

  attach(id: string, stdin: boolean): Promise<Attached> {
    return new Promise((resolve, reject) => {
      const outgoing = request({
        socketPath: this.socketPath,
        method: "POST",
        path: `/containers/${id}/attach?stream=1&stdout=1&stderr=1&stdin=${stdin ? 1 : 0}`,
        headers: { Connection: "Upgrade", Upgrade: "tcp" },
      });
      outgoing.on("error", reject);
      outgoing.on("upgrade", (_response, socket: Socket, head: Buffer) => {
        socket.on("error", () => socket.destroy());
        resolve({ socket, head });
      });
      outgoing.on("response", (response) => {
        response.resume();
        reject(new Error(`attach: HTTP ${response.statusCode}`));
      });
      outgoing.end();
    });
  }

  async #request(
    method: string,
    path: string,
    body?: unknown,
  ): Promise<string> {
    const response = await this.#open(method, path, body);
    response.setEncoding("utf8");
    let text = "";
    for await (const chunk of response) text += chunk as string;
    const status = response.statusCode ?? 0;
    if (status >= 400) {
      throw new Error(`${method} ${path}: HTTP ${status}: ${text.trim()}`);
    }
    return text;
  }

  #open(
    method: string,
    path: string,
    body?: unknown,
  ): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const outgoing = request(
        {
          socketPath: this.socketPath,
          method,
          path,
          headers: { "Content-Type": "application/json" },
        },
        resolve,
      );
      outgoing.on("error", reject);
      outgoing.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }
}
