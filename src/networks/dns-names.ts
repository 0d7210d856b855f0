import type { ContainerNames } from "./index.js";

/** How many digits of an ID its short form has. */
const SHORT = 12;

/** What a container is called on a network that a user made; the first name is its own. */
export function dnsNames(
  container: ContainerNames,
  aliases: readonly string[] = [],
): string[] {
  const { name, id, hostname } = container;
  const names = [name, ...aliases, id.slice(0, SHORT), hostname];
  return [...new Set(names.filter(Boolean))];
}
