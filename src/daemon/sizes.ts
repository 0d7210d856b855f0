/** Sizes as users write them. */
const UNITS = ["b", "k", "m", "g", "t"];

/**
 * Reads "512m", "1.5GiB", "10g" or a bare number of bytes; units count in powers of 1024, as the
 * Engine's do.
 * @returns bytes, or undefined when it is no size
 */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([bkmgt])?(?:i?b)?$/i.exec(text.trim());
  if (match === null) return undefined;
  const unit = UNITS.indexOf((match[2] ?? "b").toLowerCase());
  const bytes = Math.floor(Number(match[1]) * 1024 ** unit);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}
