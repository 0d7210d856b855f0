/** Finding containers by name, ID or the beginning of an ID; names are unique. */
import { Conflict, InvalidParameter, NotFound } from "../errors.js";
import type { Container } from "./container.js";

export class ContainerIndex {
  readonly #byId = new Map<string, Container>();
  readonly #idByName = new Map<string, string>();

  [Symbol.iterator](): IterableIterator<Container> {
    return this.#byId.values();
  }

  add(container: Container): void {
    this.#byId.set(container.id, container);
    this.#idByName.set(container.record.name, container.id);
  }

  remove(container: Container): void {
    this.#byId.delete(container.id);
    this.release(container.record.name, container.id);
  }

  /**
   * Takes a name for a container, before it is made.
   * @throws {Conflict} in Docker's words
   */
  reserve(name: string, id: string): void {
    const owner = this.#idByName.get(name);
    if (owner !== undefined) {
      throw new Conflict(
        `Conflict. The container name "/${name}" is already in use by container "${owner}". You have to remove (or rename) that container to be able to reuse that name.`,
      );
    }
    this.#idByName.set(name, id);
  }

  release(name: string, id: string): void {
    if (this.#idByName.get(name) === id) this.#idByName.delete(name);
  }

  isTaken(name: string): boolean {
    return this.#idByName.has(name);
  }

  /**
   * @throws {NotFound} no such container
   * @throws {InvalidParameter} more than one ID begins like this
   */
  get(reference: string): Container {
    const exact = this.#byId.get(reference) ?? this.#byName(reference);
    if (exact) return exact;
    if (/^[0-9a-f]{1,63}$/.test(reference)) {
      const found = [...this.#byId.values()].filter((container) =>
        container.id.startsWith(reference),
      );
      if (found.length > 1) {
        throw new InvalidParameter(
          `multiple IDs found with provided prefix: ${reference}`,
        );
      }
      if (found[0]) return found[0];
    }
    throw new NotFound(`No such container: ${reference}`);
  }

  #byName(name: string): Container | undefined {
    const id = this.#idByName.get(name.startsWith("/") ? name.slice(1) : name);
    return id === undefined ? undefined : this.#byId.get(id);
  }
}
