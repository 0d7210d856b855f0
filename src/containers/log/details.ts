/** What `docker logs --details` puts before each line: attributes that --log-opt chose. */
import type { ContainerRecord } from "../record.js";

/** "key=value,…" in the order of the keys, each percent-encoded as Docker does it; "" for none. */
export function logDetails({ config, hostConfig }: ContainerRecord): string {
  const options = hostConfig.LogConfig?.Config ?? {};
  const env = new Map(
    config.Env.map((entry): [string, string] => {
      const equals = entry.indexOf("=");
      return [entry.slice(0, equals), entry.slice(equals + 1)];
    }),
  );
  const chosen = new Map<string, string>();
  for (const name of list(options["labels"])) {
    if (Object.hasOwn(config.Labels, name)) {
      chosen.set(name, config.Labels[name] ?? "");
    }
  }
  for (const name of list(options["env"])) {
    const value = env.get(name);
    if (value !== undefined) chosen.set(name, value);
  }
  return [...chosen]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${encode(key)}=${encode(value)}`)
    .join(",");
}

function list(option: string | undefined): string[] {
  return (option ?? "").split(",").filter(Boolean);
}

/** Go's url.QueryEscape. */
function encode(text: string): string {
  return encodeURIComponent(text)
    .replace(
      /[!'()*]/g,
      (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`,
    )
    .replaceAll("%20", "+");
}
