/** Exec endpoints. */
import { z } from "zod";
import { joinClient } from "../containers/attach.js";
import { execRequestSchema } from "../containers/create-request.js";
import { detachKeysOf } from "../containers/detach-keys.js";
import type { ContainerService } from "../containers/service.js";
import { InvalidParameter } from "../errors.js";
import { readJson } from "./body.js";
import type { ApiRouter } from "./context.js";
import { terminalSize } from "./containers.js";
import { messageOf } from "./errors.js";
import { hijack } from "./hijack.js";

const startSchema = z.object({
  Detach: z.boolean().nullish(),
  Tty: z.boolean().nullish(),
  ConsoleSize: z.array(z.int().min(0)).length(2).nullish(),
});

export function execRoutes(service: ContainerService) {
  const { execs } = service;

  return (router: ApiRouter): void => {
    router.post("/containers/:id/exec", async (ctx) => {
      const request = await readJson(ctx, execRequestSchema);
      const container = service.get(ctx.params["id"] ?? "");
      if (!request.Cmd?.length) {
        throw new InvalidParameter("No exec command specified");
      }
      detachKeysOf(request.DetachKeys);
      ctx.status = 201;
      ctx.body = { Id: execs.create(container, request).id };
    });

    router.post("/exec/:id/start", async (ctx) => {
      const { Detach, ConsoleSize } = await readJson(ctx, startSchema);
      const exec = execs.get(ctx.params["id"] ?? "");
      execs.checkStart(exec);
      const size = ConsoleSize as [number, number] | null | undefined;
      if (Detach) {
        await execs.start(exec, size ?? undefined);
        ctx.status = 200;
        return;
      }
      const { request } = exec;
      const tty = request.Tty ?? false;
      const client = await hijack(ctx, {
        multiplexed: !tty,
        stdin: request.AttachStdin ?? false,
      });
      const joined = joinClient(exec.stdio, client, {
        stdin: request.AttachStdin ?? false,
        stdout: request.AttachStdout ?? false,
        stderr: request.AttachStderr ?? false,
        closeStdin: !tty,
        detachKeys: tty ? detachKeysOf(request.DetachKeys) : undefined,
      });
      try {
        await execs.start(exec, size ?? undefined);
      } catch (error) {
        // The connection is the client's terminal by now: say it there, as Docker does.
        await client.stdout(Buffer.from(`${messageOf(error)}\r\n`));
        await exec.stdio.finish();
      }
      await joined;
    });

    router.post("/exec/:id/resize", async (ctx) => {
      const { rows, columns } = terminalSize(ctx);
      await execs.resize(execs.get(ctx.params["id"] ?? ""), rows, columns);
      ctx.status = 200;
    });

    router.get("/exec/:id/json", (ctx) => {
      const exec = execs.get(ctx.params["id"] ?? "");
      const { request, container } = exec;
      const [entrypoint, ...args] = request.Cmd ?? [];
      ctx.body = {
        ID: exec.id,
        Running: exec.state === "running",
        ExitCode: exec.exitCode,
        ProcessConfig: {
          tty: request.Tty ?? false,
          entrypoint: entrypoint ?? "",
          arguments: args,
          privileged: request.Privileged ?? false,
          ...(request.User ? { user: request.User } : {}),
        },
        OpenStdin: request.AttachStdin ?? false,
        OpenStderr: request.AttachStderr ?? false,
        OpenStdout: request.AttachStdout ?? false,
        CanRemove: exec.state === "exited",
        ContainerID: container.id,
        DetachKeys: request.DetachKeys ?? "",
        Pid: exec.pid,
      };
    });
  };
}
