/** RUN: a command in a container, and so in a machine, of its own. */
import type { StdioClient } from "../containers/stdio.js";
import type { Instruction } from "../dockerfile/parse.js";
import { faultPoint } from "../fault.js";
import { shortId } from "../images/digest.js";
import { CommandFailed, commandOf, type StepContext } from "./builder.js";
import type { Stage } from "./stage.js";

export async function runStep(
  context: StepContext,
  stage: Stage,
  instruction: Instruction,
): Promise<void> {
  const { containers, options, cached, commit } = context;
  const { say, signal } = options;
  const command = commandOf(stage, instruction);
  const args = stage.runArguments(options.buildArgs);
  const words = [
    ...(args.length ? [`|${args.length}`, ...args] : []),
    ...command,
  ].join(" ");
  const key = `RUN ${JSON.stringify([args, command])}`;
  if (await cached(key)) return;
  const container = await containers.create(
    {
      Image: stage.image,
      Entrypoint: [""],
      Cmd: command,
      Env: args,
      Healthcheck: { Test: ["NONE"] },
      HostConfig: options.host,
    },
    undefined,
    undefined,
    true,
  );
  faultPoint("build.run-created");
  say({ stream: ` ---> Running in ${container.id.slice(0, 12)}\n` });
  let done = false;
  const stop = () => {
    containers.lifecycle.kill(container, "KILL").catch(() => undefined);
  };
  try {
    const ended = container.wait("next-exit", new AbortController().signal);
    const output: StdioClient = {
      stdout: true,
      stderr: true,
      write: (_stream, chunk) => {
        say({ stream: chunk.toString("utf8") });
        return Promise.resolve();
      },
      end: () => undefined,
    };
    container.stdio.attach(output);
    await containers.lifecycle.start(container);
    faultPoint("build.run-started");
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
    const code = await ended;
    faultPoint("build.run-ended");
    signal.throwIfAborted();
    if (code !== 0) {
      throw new CommandFailed(
        `The command '${command.join(" ")}' returned a non-zero code: ${code}`,
        code,
      );
    }
    await commit({
      words,
      key,
      layer: await containers.files.layer(container, false),
    });
    done = true;
    faultPoint("build.run-committed");
  } finally {
    signal.removeEventListener("abort", stop);
    if (done ? options.remove : options.forceRemove || signal.aborted) {
      await containers.remove(container, true, true).catch(() => undefined);
      if (done)
        say({
          stream: ` ---> Removed intermediate container ${shortId(`sha256:${container.id}`)}\n`,
        });
    } else await containers.keep(container);
  }
}
