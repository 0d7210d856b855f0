/** The operations on checkpoints, behind the API. */
import type { Container } from "../container.js";
import { type CheckpointMaking, createCheckpoint } from "./create.js";
import {
  type CheckpointPlace,
  listCheckpoints,
  removeCheckpoint,
} from "./store.js";

export interface CheckpointsOptions extends CheckpointMaking {
  /** Ends a container whose processes are frozen. */
  kill: (container: Container) => Promise<void>;
}

export class Checkpoints {
  readonly #options: CheckpointsOptions;

  constructor(options: CheckpointsOptions) {
    this.#options = options;
  }

  /**
   * `POST /containers/{id}/checkpoints`.
   * @param exit the container ends afterwards
   * @throws {InvalidParameter} the name or the folder cannot be
   * @throws {Conflict} it does not run, has mounts, or has a checkpoint of that name
   */
  async create(
    container: Container,
    place: CheckpointPlace,
    exit: boolean,
  ): Promise<void> {
    await createCheckpoint(container, place, this.#options, exit);
    if (exit) await this.#options.kill(container);
  }

  /** `GET /containers/{id}/checkpoints`: names. */
  list(container: Container, directory?: string): Promise<string[]> {
    return listCheckpoints(container, directory);
  }

  /**
   * `DELETE /containers/{id}/checkpoints/{checkpoint}`.
   * @throws {NotFound} there is none of that name
   */
  remove(container: Container, place: CheckpointPlace): Promise<void> {
    return container.exclusive(() => removeCheckpoint(container, place));
  }
}
