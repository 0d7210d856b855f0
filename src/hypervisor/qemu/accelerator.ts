import { constants } from "node:fs";
import { access, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { Unavailable } from "../../errors.js";
import { writeRecord } from "../../state-file.js";
import { launch, LAUNCH_FAILED, type Platform } from "./launch.js";
import { bootId } from "./process-identity.js";

const TRIAL_MS = 3000;
/** How long a killed trial may take to be gone, in ms. */
const KILL_MS = 5000;
/** How long a QEMU whose channel is gone may take to end and say why, in ms. */
const LAST_WORDS_MS = 1000;
const TRIAL_SHAPE = { memoryMiB: 128, vcpus: 1, nics: "user" } as const;

export type AcceleratorSetting = "auto" | "kvm" | "tcg";

export interface AcceleratorChoice {
  accelerator: "kvm" | "tcg";
  /** One sentence: why. */
  reason: string;
}

/** What the outcome of a trial depends on. */
export interface TrialSubject {
  kernelHash: string;
  initramfsHash: string;
  qemuVersion: string;
}

export interface AcceleratorOptions {
  setting: AcceleratorSetting;
  platform: Omit<Platform, "accelerator">;
  subject: TrialSubject;
  /** Where the outcome of the trial is remembered. */
  memoryFile: string;
  /** Where the trial machine has its sockets: a short path. */
  runDirectory: string;
  /** The device that must be there; another one in tests. */
  kvmDevice?: string;
  /** How long a trial boot may take until the agent's hello, in ms; another limit in tests. */
  trialMs?: number;
}

/** `failure` is why KVM cannot be used; absent when it can. */
const outcomeShape = z.object({
  key: z.string(),
  failure: z.string().optional(),
});
type Outcome = z.infer<typeof outcomeShape>;

/**
 * Chooses how machines run. That /dev/kvm can be opened does not say that a guest runs: what decides is
 * whether our own kernel boots with it, tried once per host boot, kernel, agent and QEMU.
 * @throws {Unavailable} KVM was demanded and does not work
 */
export async function chooseAccelerator(
  options: AcceleratorOptions,
): Promise<AcceleratorChoice> {
  const { setting } = options;
  if (setting === "tcg") {
    return { accelerator: "tcg", reason: "the configuration asks for TCG" };
  }
  const failure = await kvmFailure(options);
  if (failure === undefined) {
    return {
      accelerator: "kvm",
      reason: "a trial boot of the guest kernel with KVM succeeded",
    };
  }
  if (setting === "kvm") {
    throw new Unavailable(
      `the configuration asks for KVM, which does not work here: ${failure}`,
    );
  }
  return { accelerator: "tcg", reason: failure };
}

async function kvmFailure(
  options: AcceleratorOptions,
): Promise<string | undefined> {
  const device = options.kvmDevice ?? "/dev/kvm";
  try {
    await access(device, constants.R_OK | constants.W_OK);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EACCES"
      ? `${device} cannot be opened for lack of permission`
      : `${device} is not there`;
  }
  const { kernelHash, initramfsHash, qemuVersion } = options.subject;
  const key = [kernelHash, initramfsHash, qemuVersion, await bootId()].join(
    " ",
  );
  const known = await recall(options.memoryFile);
  // Who demands KVM may just have repaired it.
  if (known?.key === key && !(known.failure && options.setting === "kvm")) {
    return known.failure;
  }
  const failure = await trial(options);
  const outcome: Outcome = { key, ...(failure ? { failure } : {}) };
  await writeRecord(options.memoryFile, outcome, { durable: false });
  return failure;
}

async function recall(path: string): Promise<Outcome | undefined> {
  try {
    const text = await readFile(path, "utf8");
    return outcomeShape.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** Boots our kernel and agent with KVM. @returns why it did not work */
async function trial(options: AcceleratorOptions): Promise<string | undefined> {
  await mkdir(options.runDirectory, { recursive: true, mode: 0o700 });
  const directory = await mkdtemp(join(options.runDirectory, "trial-"));
  const limit = new AbortController();
  const trialMs = options.trialMs ?? TRIAL_MS;
  try {
    const booted = boot(options, directory, limit.signal);
    const timer = sleep(trialMs, "late" as const, { signal: limit.signal });
    timer.catch(() => undefined);
    const first = await Promise.race([booted, timer]);
    if (first !== "late") return first;
    // Aborted, it kills its process, even one that spins inside of the kernel.
    limit.abort();
    const late = `KVM did not boot the guest kernel within ${trialMs / 1000} s`;
    const killed = await Promise.race([
      booted,
      sleep(KILL_MS, "stuck" as const),
    ]);
    return killed === "stuck"
      ? `${late}, and its process cannot be ended`
      : late;
  } finally {
    limit.abort();
    await rm(directory, { recursive: true, force: true });
  }
}

async function boot(
  options: AcceleratorOptions,
  directory: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  try {
    const machine = await launch(
      { ...options.platform, accelerator: "kvm" },
      {
        name: "hull-kvm-trial",
        directory,
        shape: TRIAL_SHAPE,
        memory: { kind: "own" },
        nics: [],
      },
      signal,
    );
    try {
      const hello = await Promise.race([
        // The channel goes first when QEMU dies; why it died is the better reason.
        machine.agent.hello.catch(() => sleep(LAST_WORDS_MS)),
        machine.exited.then(({ reason }) => Promise.reject(new Error(reason))),
        new Promise<never>((_, reject) =>
          signal.addEventListener("abort", () => reject(new Error("aborted"))),
        ),
      ]);
      return hello
        ? undefined
        : "KVM did not boot the guest kernel: the guest's agent went away";
    } finally {
      await machine.kill();
    }
  } catch (error) {
    const message = (error as Error).message.replace(LAUNCH_FAILED, "");
    return `KVM did not boot the guest kernel: ${message}`;
  }
}
