/** Signals by name, as `docker kill -s` and STOPSIGNAL take them. */
import { constants } from "node:os";
import { InvalidParameter } from "../errors.js";

/** No process can catch or ignore it. */
export const SIGKILL = 9;
const RTMIN = 34;
const RTMAX = 64;

/**
 * The number of a signal given as "KILL", "SIGKILL", "9", "RTMIN+3".
 * @throws {InvalidParameter} with Docker's words
 */
export function signalNumber(signal: string): number {
  if (/^\d+$/.test(signal)) {
    const number = Number(signal);
    if (number > 0 && number <= RTMAX) return number;
    if (number > RTMAX) {
      throw new InvalidParameter(
        `the linux daemon does not support signal ${signal}`,
      );
    }
  } else {
    const name = signal.toUpperCase().replace(/^SIG/, "");
    const realtime = /^RT(MIN|MAX)(?:([+-])(\d{1,2}))?$/.exec(name);
    if (realtime) {
      const base = realtime[1] === "MIN" ? RTMIN : RTMAX;
      const step = Number(realtime[3] ?? 0);
      const number = realtime[2] === "-" ? base - step : base + step;
      if (number >= RTMIN && number <= RTMAX) return number;
    }
    const known = (constants.signals as Record<string, number | undefined>)[
      `SIG${name}`
    ];
    if (known !== undefined) return known;
  }
  throw new InvalidParameter(`invalid signal: ${signal}`);
}
