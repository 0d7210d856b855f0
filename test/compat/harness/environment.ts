/** What `test/compat/run` made for all test files: registries, the daemon, folders. */
import { readFileSync } from "node:fs";
import type { RegistryAddress } from "./registry.js";

/** Everything a test file needs to know, as JSON in the file $HULL_COMPAT names. */
export interface Environment {
  /** Folder of this run; removed at its end. */
  directory: string;
  /** $DOCKER_CONFIG of the run. */
  dockerConfig: string;
  /** The program Compose v2, which is the CLI's plugin, too. */
  compose: string;
  /** Folder of the shared daemon (see Daemon). */
  daemon: string;
  registries: {
    plain: RegistryAddress;
    basic: RegistryAddress;
    token: RegistryAddress;
    /** Not on loopback, with an authority the daemon was told of; absent without root. */
    tls?: RegistryAddress;
    /** The same, with an authority nobody was told of. */
    untrusted?: RegistryAddress;
  };
  /** Whether the Debian image was pushed. */
  debian: boolean;
  root: boolean;
}

let loaded: Environment | undefined;

/** @throws when the tests were not started by `test/compat/run` */
export function environment(): Environment {
  if (!loaded) {
    const file = process.env["HULL_COMPAT"];
    if (file === undefined)
      throw new Error("start these tests with test/compat/run");
    loaded = JSON.parse(readFileSync(file, "utf8")) as Environment;
  }
  return loaded;
}

/** The reference of an image in the plain registry. */
export function imageRef(repository: string, tag = "latest"): string {
  return `${environment().registries.plain.host}/${repository}:${tag}`;
}

/** The image most tests run. */
export function busybox(): string {
  return imageRef("busybox");
}
