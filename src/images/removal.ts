/** `docker rmi`: names first, then the image itself, with the Engine's conflicts. */
import { Conflict, NotFound } from "../errors.js";
import { type Digest, shortId } from "./digest.js";
import type { ImageUsage } from "./index.js";
import { parseReference, type Reference } from "./reference.js";
import type { Catalog, CatalogDraft } from "./store/catalog.js";
import { chainIdOf } from "./store/layer-store.js";
import type { DeletedItem } from "./views.js";

export interface Removal {
  id: Digest;
  items: DeletedItem[];
  /** What there was of it, for the events: one "untag" each, and "delete" at the end. */
  untagged: Reference[];
  deleted: boolean;
}

/**
 * Removes a name, and the image when it was the last one; or by its ID the image with all its names.
 * @param text as the user gave it
 * @param id the image it stands for
 * @throws {Conflict} in the Engine's words; nothing has changed
 */
export function removeImage(
  catalog: Catalog,
  usage: ImageUsage,
  text: string,
  id: Digest,
  force: boolean,
): Promise<Removal> {
  return catalog.update((draft) => {
    if (!draft.images.has(id)) throw new NotFound(`No such image: ${text}`);
    return new Remover(draft, usage, id, force).remove(text);
  });
}

class Remover {
  readonly #draft: CatalogDraft;
  readonly #id: Digest;
  readonly #force: boolean;
  readonly #containers: { id: string; running: boolean }[];
  readonly #untagged: Reference[] = [];

  constructor(
    draft: CatalogDraft,
    usage: ImageUsage,
    id: Digest,
    force: boolean,
  ) {
    this.#draft = draft;
    this.#id = id;
    this.#force = force;
    this.#containers = usage.containersOf(id);
  }

  remove(text: string): Removal {
    const byId = isIdPrefix(this.#id, text) && !this.#isName(text);
    if (byId) this.#removeById();
    else if (!this.#removeName(text)) return this.#result(false, []);
    const conflict = this.#conflict(!this.#force);
    if (conflict !== undefined) {
      // A name was taken away as asked; that the image is still used is no failure then.
      if (!byId && (conflict.used || this.#references().length > 0)) {
        this.#draft.unnamed.add(this.#id);
        return this.#result(false, []);
      }
      throw new Conflict(conflict.message);
    }
    for (const reference of this.#references()) this.#untag(reference);
    const chains = this.#uniqueChains();
    this.#draft.remove(this.#id, this.#containers.length > 0);
    return this.#result(true, chains);
  }

  /** A name wins over an ID that begins like it. */
  #isName(text: string): boolean {
    try {
      const name = parseReference(text).withDefaultTag().toString();
      return this.#draft.references.get(name) === this.#id;
    } catch {
      return false;
    }
  }

  /** @returns whether it was the last name */
  #removeName(text: string): boolean {
    const [container] = this.#containers;
    if (
      !this.#force &&
      container !== undefined &&
      isSingleReference(this.#references())
    ) {
      throw new Conflict(
        `conflict: unable to remove repository reference ${JSON.stringify(text)} (must force) - container ${shortId(container.id)} is using its referenced image ${shortId(this.#id)}`,
      );
    }
    const given = parseReference(text).withDefaultTag();
    const reference =
      given.digest === undefined ? given : given.withDigest(given.digest);
    this.#untag(reference);
    // Digests of a repository go with its last tag.
    const rest = this.#references().filter(
      ({ name }) => name === reference.name,
    );
    if (
      reference.digest === undefined &&
      rest.every(({ digest }) => digest !== undefined)
    ) {
      for (const other of rest) this.#untag(other);
    }
    return this.#references().length === 0;
  }

  #removeById(): void {
    const references = this.#references();
    if (!isSingleReference(references)) return;
    const conflict = this.#conflict(!this.#force, false);
    if (conflict !== undefined) throw new Conflict(conflict.message);
    for (const reference of references) this.#untag(reference);
  }

  #conflict(
    soft: boolean,
    references = soft,
  ): { message: string; used: boolean } | undefined {
    const message = (how: string, why: string): string =>
      `conflict: unable to delete ${shortId(this.#id)} (${how} be forced) - ${why}`;
    if (this.#hasChildren()) {
      return {
        used: true,
        message: message("cannot", "image has dependent child images"),
      };
    }
    const running = this.#containers.find((container) => container.running);
    if (running !== undefined) {
      return {
        used: true,
        message: message(
          "cannot",
          `image is being used by running container ${shortId(running.id)}`,
        ),
      };
    }
    if (references && this.#references().length > 0) {
      return {
        used: false,
        message: message(
          "must",
          "image is referenced in multiple repositories",
        ),
      };
    }
    const [stopped] = this.#containers;
    if (soft && stopped !== undefined) {
      return {
        used: true,
        message: message(
          "must",
          `image is being used by stopped container ${shortId(stopped.id)}`,
        ),
      };
    }
    return undefined;
  }

  #hasChildren(): boolean {
    return [...this.#draft.images.values()].some(
      ({ parent }) => parent === this.#id,
    );
  }

  #references(): Reference[] {
    return [...this.#draft.references]
      .filter(([, image]) => image === this.#id)
      .map(([reference]) => parseReference(reference));
  }

  #untag(reference: Reference): void {
    if (!this.#draft.references.delete(reference.toString())) return;
    this.#untagged.push(reference);
  }

  /** Chain IDs no other image has, uppermost first: Docker lists them as deleted. */
  #uniqueChains(): Digest[] {
    const others = new Set<Digest>();
    for (const { id, diffIds } of this.#draft.images.values()) {
      if (id !== this.#id)
        for (const chain of chains(diffIds)) others.add(chain);
    }
    const own = this.#draft.images.get(this.#id)?.diffIds ?? [];
    return chains(own)
      .filter((chain) => !others.has(chain))
      .reverse();
  }

  #result(deleted: boolean, chainIds: Digest[]): Removal {
    return {
      id: this.#id,
      untagged: this.#untagged,
      deleted,
      items: [
        ...this.#untagged.map(({ familiar }) => ({ Untagged: familiar })),
        ...(deleted ? [{ Deleted: this.#id }] : []),
        ...chainIds.map((chainId) => ({ Deleted: chainId })),
      ],
    };
  }
}

function chains(diffIds: readonly Digest[]): Digest[] {
  return diffIds.map((_, index) => chainIdOf(diffIds.slice(0, index + 1)));
}

/** Whether the user's text is an image's ID, or the beginning of it, rather than a name. */
export function isIdPrefix(id: Digest, text: string): boolean {
  return (
    text !== "" &&
    (id.startsWith(text) || id.slice(id.indexOf(":") + 1).startsWith(text))
  );
}

/** At most one tag, and nothing in another repository. */
function isSingleReference(references: readonly Reference[]): boolean {
  if (references.length <= 1) return true;
  const tags = references.filter(({ digest }) => digest === undefined);
  const digested = new Set(
    references
      .filter(({ digest }) => digest !== undefined)
      .map(({ name }) => name),
  );
  if (tags.length > 1) return false;
  const single = tags[0] ?? references[0];
  return (
    digested.size === 1 && single !== undefined && digested.has(single.name)
  );
}
