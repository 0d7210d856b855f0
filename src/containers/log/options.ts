/** The options of --log-driver and --log-opt. */
import { InvalidParameter } from "../../errors.js";
import type { HostConfig } from "../create-request.js";

const UNITS: Record<string, number> = {
  "": 1,
  b: 1,
  k: 1024,
  m: 1024 ** 2,
  g: 1024 ** 3,
};
const DRIVERS = ["json-file", "local", "none"];
const ACCEPTED = [
  ...["max-size", "max-file", "compress", "mode", "max-buffer-size"],
  // What --details shows.
  ...["labels", "env"],
];
/** What Go's strconv.ParseBool takes. */
const BOOLEANS = new Map([
  ...["1", "t", "T", "true", "TRUE", "True"].map((t) => [t, true] as const),
  ...["0", "f", "F", "false", "FALSE", "False"].map((f) => [f, false] as const),
]);
/** Docker's defaults of the driver `local`, which also compresses; `json-file` never begins a new file by default. */
const LOCAL = { "max-size": "20m", "max-file": "5" };

/**
 * Reads a container's LogConfig.
 * @throws {InvalidParameter} an option or driver that hull does not know, by name
 */
export function logOptions(host: HostConfig): {
  maxSize: number;
  maxFiles: number;
  compress: boolean;
} {
  const type = host.LogConfig?.Type || "json-file";
  const given = host.LogConfig?.Config ?? {};
  const config: Record<string, string> =
    type === "local" ? { ...LOCAL, ...given } : given;
  if (!DRIVERS.includes(type)) {
    throw new InvalidParameter(
      `error looking up logging plugin ${type}: plugin ${JSON.stringify(type)} not found`,
    );
  }
  for (const name of Object.keys(config)) {
    if (!ACCEPTED.includes(name)) {
      throw new InvalidParameter(
        `unknown log opt '${name}' for ${type} log driver`,
      );
    }
  }
  const maxFiles = Number(config["max-file"] ?? "1");
  if (!Number.isInteger(maxFiles) || maxFiles < 1) {
    throw new InvalidParameter("max-file cannot be less than 1");
  }
  const maxSize = sizeOf(config["max-size"]);
  const rotates = maxFiles > 1 && maxSize !== Infinity;
  if (config["compress"] === undefined) {
    return { maxSize, maxFiles, compress: type === "local" && rotates };
  }
  const compress = BOOLEANS.get(config["compress"]);
  if (compress === undefined) {
    throw new InvalidParameter(
      `invalid compress: '${config["compress"]}' is not a boolean`,
    );
  }
  if (compress && !rotates) {
    throw new InvalidParameter(
      "compress cannot be true when max-file is less than 2 or max-size is not set",
    );
  }
  return { maxSize, maxFiles, compress };
}

function sizeOf(text: string | undefined): number {
  if (text === undefined || text === "-1") return Infinity;
  const match = /^(\d+(?:\.\d+)?)\s*([bkmg]?)b?$/i.exec(text);
  const unit = UNITS[match?.[2]?.toLowerCase() ?? "?"];
  const size = Number(match?.[1]) * (unit ?? Number.NaN);
  if (!(size > 0)) {
    throw new InvalidParameter(`invalid size: '${text}'`);
  }
  return size;
}
