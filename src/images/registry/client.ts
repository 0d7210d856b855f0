/** Finds the way to a registry. */
import { InvalidParameter } from "../../errors.js";
import type { Reference } from "../reference.js";
import { ANONYMOUS, type Credentials } from "./credentials.js";
import { endpointsOf, type RegistryOptions } from "./endpoints.js";
import { RegistryError } from "./errors.js";
import { Repository } from "./repository.js";
import { type IndexEntry, type IndexSearch, searchIndex } from "./search.js";
import { Transport } from "./transport.js";

export class RegistryClient {
  readonly #transport = new Transport();
  readonly #options: RegistryOptions;

  constructor(options: RegistryOptions) {
    this.#options = options;
  }

  /**
   * Runs an operation at the first endpoint of a reference's registry that serves: mirrors first, HTTPS
   * before HTTP where HTTP is allowed at all.
   * @throws {RegistryError} the last endpoint's failure
   */
  async withRepository<T>(
    reference: Reference,
    credentials: Credentials,
    signal: AbortSignal,
    run: (repository: Repository) => Promise<T>,
    /** "push" leaves the mirrors out. */
    purpose: "pull" | "push" = "pull",
  ): Promise<T> {
    if (!URL.canParse(`https://${reference.domain}`)) {
      throw new InvalidParameter(
        `invalid registry host: ${JSON.stringify(reference.domain)}`,
      );
    }
    const endpoints = (
      await endpointsOf(reference.domain, this.#options)
    ).filter(({ mirror }) => !mirror || purpose === "pull");
    const last = endpoints.at(-1);
    for (const endpoint of endpoints) {
      try {
        // A mirror of docker.io gets no credentials of docker.io.
        const repository = new Repository(
          this.#transport,
          endpoint,
          reference.path,
          endpoint.mirror ? ANONYMOUS : credentials,
          purpose === "push" ? "pull,push" : "pull",
        );
        const reached = await repository.ping(signal).then(
          () => true,
          (error: unknown) => {
            signal.throwIfAborted();
            if (endpoint === last) throw error;
            return false;
          },
        );
        if (reached) return await run(repository);
      } catch (error) {
        signal.throwIfAborted();
        if (!endpoint.mirror) throw error;
      }
    }
    throw new RegistryError("", "no endpoint of the registry could be reached");
  }

  /**
   * Checks credentials at a registry, as `docker login` wants it.
   * @throws {RegistryError} not reached, or refused
   */
  async login(
    domain: string,
    credentials: Credentials,
    signal: AbortSignal,
  ): Promise<void> {
    const endpoints = (await endpointsOf(domain, this.#options)).filter(
      ({ mirror }) => !mirror,
    );
    const last = endpoints.at(-1);
    for (const endpoint of endpoints) {
      const repository = new Repository(
        this.#transport,
        endpoint,
        "",
        credentials,
      );
      try {
        await repository.ping(signal);
      } catch (error) {
        if (endpoint === last) throw error;
        continue;
      }
      await repository.checkLogin(signal);
      return;
    }
  }

  /** Asks an index what it has: {@link searchIndex}. */
  search(search: IndexSearch): Promise<IndexEntry[]> {
    return searchIndex(this.#transport, this.#options, search);
  }

  /** Ends all connections. */
  close(): Promise<void> {
    return this.#transport.close();
  }
}
