/** Names of volumes, as Docker allows them. */
import { randomBytes } from "node:crypto";
import { InvalidParameter } from "../errors.js";

const ALLOWED = "[a-zA-Z0-9][a-zA-Z0-9_.-]";
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;
/** Longest name of a folder. */
const MAX_LENGTH = 255;

/** The label by which Docker tells volumes that nobody named. */
export const ANONYMOUS_LABEL = "com.docker.volume.anonymous";

/**
 * @param name what the user gave
 * @throws {InvalidParameter} in Docker's words
 */
export function checkVolumeName(name: string): string {
  if (name.length === 1) {
    throw new InvalidParameter(
      `create ${name}: volume name is too short, names should be at least two alphanumeric characters`,
    );
  }
  if (!NAME.test(name)) {
    throw new InvalidParameter(
      `create ${name}: ${JSON.stringify(name)} includes invalid characters for a local volume name, only "${ALLOWED}" are allowed. If you intended to pass a host directory, use absolute path`,
    );
  }
  if (name.length > MAX_LENGTH) {
    throw new InvalidParameter(
      `create ${name}: volume name is too long, names can have ${MAX_LENGTH} characters`,
    );
  }
  return name;
}

/** A name for a volume that nobody named. */
export function anonymousName(): string {
  return randomBytes(32).toString("hex");
}
