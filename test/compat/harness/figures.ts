/** What a test has counted and measured, in lines that `test/soak/figures` makes tables of. */
import type { TestContext } from "node:test";

/** How often something was made to go wrong, and how often something was lost by it. */
export function fault(
  t: TestContext,
  what: string,
  tried: number,
  lost: number,
): void {
  t.diagnostic(`fault | ${what} | ${tried} | ${lost}`);
}

/** Something measured, with its unit. */
export function figure(t: TestContext, what: string, value: string): void {
  t.diagnostic(`figure | ${what} | ${value}`);
}

/** Bytes in MiB. */
export function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 1024 / 1024)} MiB`;
}
