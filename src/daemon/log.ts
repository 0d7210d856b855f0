/** The daemon's log: one line an event on standard output. */
import { type Logger, pino } from "pino";
import pretty from "pino-pretty";
import type { Config } from "./config.js";

export function createLog(config: Config): Logger {
  const format =
    config["log-format"] ?? (process.stdout.isTTY ? "text" : "json");
  // The reader of our output may go away; that is no reason to end.
  process.stdout.on("error", () => undefined);
  const destination =
    format === "text"
      ? pretty({
          destination: 1,
          sync: true,
          colorize: process.stdout.isTTY,
          ignore: "pid,hostname",
          translateTime: "SYS:yyyy-mm-dd HH:MM:ss.l",
        })
      : pino.destination({ fd: 1, sync: true });
  destination.on("error", () => undefined);
  return pino(
    {
      level: config.debug ? "debug" : config["log-level"],
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    destination,
  );
}
