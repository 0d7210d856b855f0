/** `docker ps`: which containers, in which order (moby daemon/list.go). */
import { InvalidParameter, notANumber } from "../errors.js";
import type { Filters } from "../filters.js";
import { portMatcher } from "./ports-view.js";
import type { Container } from "./container.js";
import type { ContainerIndex } from "./index-of-containers.js";

/** Filters of `GET /containers/json`. */
export const LIST_FILTERS = [
  "ancestor",
  "before",
  "expose",
  "exited",
  "health",
  "id",
  "is-task",
  "isolation",
  "label",
  "name",
  "network",
  "publish",
  "since",
  "status",
  "volume",
] as const;

const STATUSES = [
  "created",
  "running",
  "paused",
  "restarting",
  "removing",
  "exited",
  "dead",
];

const HEALTH = ["starting", "healthy", "unhealthy", "none"];

export interface ListOptions {
  all: boolean;
  /** Only so many, the newest; implies `all`. */
  limit?: number;
  filters: Filters;
  /** IDs of the images that `ancestor` names. */
  ancestors: string[];
}

/**
 * Newest first.
 * @throws {InvalidParameter} a filter's value cannot be
 * @throws {NotFound} `before` or `since` names no container
 */
export function listContainers(
  index: ContainerIndex,
  options: ListOptions,
): Container[] {
  const { filters } = options;
  for (const status of filters.get("status")) {
    if (!STATUSES.includes(status)) {
      throw new InvalidParameter(`invalid filter 'status=${status}'`);
    }
  }
  for (const health of filters.get("health")) {
    if (!HEALTH.includes(health)) {
      throw new InvalidParameter(
        `unrecognized filter value for health: ${health}`,
      );
    }
  }
  const exitCodes = filters.get("exited").map((text) => {
    if (!/^-?\d+$/.test(text)) {
      throw new InvalidParameter(
        `invalid filter 'exited=${text}': ${notANumber(text)}`,
      );
    }
    return Number(text);
  });
  // No container is a task of swarm's: only what is asked for is looked at.
  if (filters.has("is-task") && filters.boolean("is-task", false)) return [];
  const [before] = filters.get("before").map((name) => index.get(name));
  const [since] = filters.get("since").map((name) => index.get(name));
  const matchesPorts = portMatcher(filters);
  const all =
    options.all ||
    Boolean(options.limit) ||
    filters.has("status") ||
    filters.has("exited");
  const found = [...index]
    .filter((container) => {
      const { record } = container;
      const { state } = record;
      return (
        (all || container.isRunning || state.status === "restarting") &&
        filters.exactMatch("status", state.status) &&
        (exitCodes.length === 0 ||
          (state.status === "exited" && exitCodes.includes(state.exitCode))) &&
        matchesId(filters, record.id) &&
        matchesName(filters, record.name) &&
        filters.matchPairs("label", record.config.Labels) &&
        (!filters.has("ancestor") ||
          options.ancestors.includes(record.imageId)) &&
        (!filters.has("network") || matchesNetwork(filters, container)) &&
        (!filters.has("volume") || matchesVolume(filters, container)) &&
        filters.exactMatch("health", state.health?.status ?? "none") &&
        matchesPorts(record) &&
        (!before || olderThan(container, before)) &&
        (!since || olderThan(since, container))
      );
    })
    .sort((a, b) => b.record.created.localeCompare(a.record.created));
  return options.limit && options.limit > 0
    ? found.slice(0, options.limit)
    : found;
}

function olderThan(a: Container, b: Container): boolean {
  return a.record.created < b.record.created;
}

function matchesId(filters: Filters, id: string): boolean {
  return !filters.has("id") || filters.get("id").some((p) => id.startsWith(p));
}

/** With or without the slash that Docker's own names begin with. */
function matchesName(filters: Filters, name: string): boolean {
  return filters.match("name", name) || filters.match("name", `/${name}`);
}

function matchesNetwork(filters: Filters, container: Container): boolean {
  return container.record.networks.some(({ network: mode }) => {
    const name = mode === "default" ? "bridge" : mode;
    const id = container.record.endpoints.find(
      (endpoint) => endpoint.network === name,
    )?.networkId;
    const wanted = filters.get("network");
    return (
      wanted.includes(name) ||
      (id !== undefined && wanted.some((prefix) => id.startsWith(prefix)))
    );
  });
}

/** A volume's name, or a path in the container where something is mounted. */
function matchesVolume(filters: Filters, { record }: Container): boolean {
  return (record.mounts ?? []).some(
    ({ name, destination }) =>
      (name !== undefined && filters.exactMatch("volume", name)) ||
      filters.exactMatch("volume", destination),
  );
}
