/** What a machine tells while its container runs, and who is told of it. */
import { INIT_PROCESS } from "../../../protocol/index.js";
import type { Machine } from "../../hypervisor/index.js";
import type { Container } from "../container.js";
import { MachineFiles } from "../machine-files.js";
import type { RunContext } from "./context.js";
import type { Ending } from "./ending.js";
import { within } from "./within.js";

/** How long after its channel the end of a machine may become known, in ms. */
const DEATH_NEWS_LIMIT = 1000;

export function watchMachine(
  container: Container,
  machine: Machine,
  ending: Ending,
  context: RunContext,
): void {
  const { log, execs, tell } = context;
  const files = new MachineFiles(machine, () => container.nextProcess++);
  container.files = files;
  machine.agent.onEvent((event) => {
    if (event.event === "exit" && event.process === INIT_PROCESS) {
      ending.processEnded(container, machine, event.exit);
    } else if (event.event === "exit") {
      if (files.exited(event.process, event.exit)) return;
      void execs.exited(container, event.process, event.exit);
    } else if (event.event === "oom") {
      tell(container, "oom");
    } else if (event.event === "log") {
      log[event.level](
        { container: container.id, guest: event.message.slice(0, 1000) },
        "the agent says",
      );
    }
  });
  machine.onTrouble((trouble) => {
    log.warn({ container: container.id }, trouble);
  });
  void machine.exited.then((exit) => {
    ending.machineGone(container, machine, exit);
  });
  void machine.agent.closed.then((reason) => {
    if (container.machine !== machine || ending.closed) return;
    if (!container.isRunning) return;
    log.warn({ container: container.id, reason }, "agent channel closed");
    // Without its channel nobody can say what the container does. When the machine has died, that is
    // the reason, and is about to be known.
    void within(machine.exited, DEATH_NEWS_LIMIT).then(() =>
      machine.kill(reason),
    );
  });
}
