/** Runs the host's network tools. */
import { spawn } from "node:child_process";
import { access, constants } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { SystemError } from "../errors.js";

/** The tools live in sbin, which a user's PATH may lack. */
export const TOOL_PATH = [
  process.env["PATH"] ?? "",
  "/usr/sbin",
  "/sbin",
  "/usr/bin",
  "/bin",
].join(delimiter);

/** The environment for tools: their messages are read, so they must be in English. */
export function toolEnvironment(): NodeJS.ProcessEnv {
  return { ...process.env, PATH: TOOL_PATH, LC_ALL: "C" };
}

/** @returns whether a program of this name can be executed */
export async function hasTool(name: string): Promise<boolean> {
  const candidates = TOOL_PATH.split(delimiter).filter(Boolean);
  for (const folder of candidates) {
    try {
      await access(join(folder, name), constants.X_OK);
      return true;
    } catch {
      continue;
    }
  }
  return false;
}

/**
 * Runs a tool to its end.
 * @returns what it wrote to stdout
 * @throws {SystemError} it could not be started, or failed, with its own words
 */
export function runTool(
  name: string,
  args: readonly string[],
  input = "",
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(name, args, {
      env: toolEnvironment(),
      stdio: ["pipe", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    // A tool that ends before it read its input is judged by its exit code.
    child.stdin.on("error", () => undefined);
    child.on("error", (error) => {
      reject(new SystemError(`cannot run ${name}: ${error.message}`));
    });
    child.on("close", (code, signal) => {
      if (code === 0) {
        resolve(stdout);
      } else {
        reject(
          new SystemError(
            `${name} ${args.join(" ")}: ${stderr.trim() || `ended with ${signal ?? code}`}`,
          ),
        );
      }
    });
    child.stdin.end(input);
  });
}
