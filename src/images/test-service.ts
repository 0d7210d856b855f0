/** For tests: an image service in a folder of its own. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { pino } from "pino";
import { EventBus, type EventMessage } from "../events.js";
import { MKFS_CANDIDATES, temporaryFolder } from "./layers/test-erofs.js";
import type { ProgressMessage } from "./progress.js";
import { parseReference } from "./reference.js";
import { ANONYMOUS } from "./registry/credentials.js";
import {
  ImageService,
  type ImageServiceOptions,
  type PullOptions,
} from "./service.js";

export interface TestService {
  service: ImageService;
  dataRoot: string;
  bus: EventBus;
  /** What was published so far. */
  events: EventMessage[];
  /** Pulls and returns the progress. */
  pull(
    reference: string,
    options?: Partial<PullOptions>,
  ): Promise<ProgressMessage[]>;
  /** Opens the same folder again, as a restarted daemon does. */
  reopen(): Promise<ImageService>;
  /** All files of the store but its version and names, sorted. */
  files(): Promise<string[]>;
}

export async function openService(
  t: TestContext,
  options: Partial<ImageServiceOptions> = {},
): Promise<TestService> {
  const dataRoot = options.dataRoot ?? (await temporaryFolder(t));
  const events = new EventBus();
  const heard: EventMessage[] = [];
  events.subscribe((event) => heard.push(event));
  const open = async (): Promise<ImageService> => {
    const service = await ImageService.open({
      dataRoot,
      events,
      log: pino({ level: "silent" }),
      mkfsErofs: MKFS_CANDIDATES,
      registry: { mirrors: [], insecure: [], certificateFolders: [] },
      download: { retryDelay: () => 1 },
      ...options,
    });
    t.after(() => service.close());
    return service;
  };
  const test: TestService = {
    service: await open(),
    dataRoot,
    bus: events,
    events: heard,
    async pull(reference, pullOptions = {}) {
      const messages: ProgressMessage[] = [];
      await test.service.pull(parseReference(reference), {
        platform: "",
        credentials: ANONYMOUS,
        progress: (message) => messages.push(message),
        signal: new AbortController().signal,
        ...pullOptions,
      });
      return messages;
    },
    async reopen() {
      test.service = await open();
      return test.service;
    },
    async files() {
      const root = join(dataRoot, "images");
      const entries = await readdir(root, {
        recursive: true,
        withFileTypes: true,
      });
      return entries
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name).slice(root.length))
        .filter((name) => !/^\/(version|repositories)\.json$/.test(name))
        .sort();
    },
  };
  return test;
}
