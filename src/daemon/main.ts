/** The program `hulld`: reads its configuration, runs the daemon, ends it on a signal. */
import { CommanderError } from "commander";
import type { Logger } from "pino";
import { HullError } from "../errors.js";
import { faultSet } from "../fault.js";
import { ConfigError, type Invocation, readInvocation } from "./config.js";
import { Daemon } from "./daemon.js";
import { type BuildInfo, buildInfo } from "./installation.js";
import { createLog } from "./log.js";
import { TraceError, traceOf } from "./trace-command.js";

/** Exit status for a command line or configuration that is wrong. */
const EXIT_USAGE = 2;

const build = buildInfo();
const invocation = readOrExit();
if (invocation.validate) {
  process.stderr.write("configuration OK\n");
} else if (invocation.trace) {
  await showTrace(invocation.trace);
} else {
  await run(invocation, build);
}

function readOrExit(): Invocation {
  try {
    return readInvocation(process.argv.slice(2), build.version);
  } catch (error) {
    // commander has written what there is to say.
    if (error instanceof CommanderError) {
      process.exit(error.exitCode === 0 ? 0 : EXIT_USAGE);
    }
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`hulld: ${error.message}\n`);
    process.exit(EXIT_USAGE);
  }
}

async function showTrace({
  container,
  host,
}: NonNullable<Invocation["trace"]>) {
  try {
    process.stdout.write(await traceOf(container, host));
  } catch (error) {
    const foreseen =
      error instanceof TraceError || error instanceof ConfigError;
    if (!foreseen) throw error;
    process.stderr.write(`hulld: ${error.message}\n`);
    process.exitCode = error instanceof ConfigError ? EXIT_USAGE : 1;
  }
}

async function run({ config, configFile }: Invocation, build: BuildInfo) {
  const log = createLog(config);
  watchForFailures(log);
  warnOfFault(log);
  if (configFile !== undefined)
    log.info({ configFile }, "read the config file");
  // From here on a signal ends what was started, however far the start has come.
  const stopped = stopSignal(log);
  let daemon: Daemon;
  try {
    daemon = await Daemon.start(config, build, log);
  } catch (error) {
    const foreseen = error instanceof HullError || error instanceof ConfigError;
    log.fatal(
      foreseen ? {} : { err: error },
      `cannot start: ${(error as Error).message}`,
    );
    process.exit(error instanceof ConfigError ? EXIT_USAGE : 1);
  }
  const signal = await stopped;
  log.info({ signal }, "shutting down; containers keep running");
  await daemon.stop();
  log.info("hulld has ended");
  process.exit(0);
}

/** A daemon that is to be killed by a test says so; a point that does not exist would test nothing. */
function warnOfFault(log: Logger): void {
  try {
    const point = faultSet();
    if (point !== undefined)
      log.warn(`HULL_FAULT is set: this daemon ends at ${point}`);
  } catch (error) {
    log.fatal(`cannot start: ${(error as Error).message}`);
    process.exit(EXIT_USAGE);
  }
}

/** Resolves with the first signal that asks for the end; the next one ends the process at once. */
function stopSignal(log: Logger): Promise<NodeJS.Signals> {
  process.on("SIGHUP", () => {
    log.warn("SIGHUP: the configuration is read at the start only");
  });
  return new Promise((resolve) => {
    let asked = false;
    const handle = (signal: NodeJS.Signals) => {
      if (asked) {
        log.warn({ signal }, "asked again: ending at once");
        process.exit(1);
      }
      asked = true;
      resolve(signal);
    };
    process.on("SIGTERM", handle);
    process.on("SIGINT", handle);
  });
}

/** A mistake in one request must not end the others'; one that leaves the state unknown ends all. */
function watchForFailures(log: Logger): void {
  process.on("unhandledRejection", (error) => {
    log.error({ err: error }, "unhandled rejection");
  });
  process.on("uncaughtException", (error) => {
    log.fatal({ err: error }, "uncaught exception");
    process.exit(1);
  });
}
