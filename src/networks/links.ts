/** The host's network devices as `ip` lists them. */
import { access } from "node:fs/promises";
import { createServer } from "node:net";
import { z } from "zod";
import { SystemError } from "../errors.js";
import { runTool } from "./command.js";

const linkSchema = z.object({
  ifname: z.string(),
  ifalias: z.string().optional(),
  master: z.string().optional(),
  linkinfo: z.object({ info_kind: z.string().optional() }).optional(),
  addr_info: z
    .array(
      z.object({
        family: z.string(),
        local: z.string().optional(),
        prefixlen: z.number(),
        scope: z.string().optional(),
      }),
    )
    .default([]),
});
export type Link = z.infer<typeof linkSchema>;

/** @throws {SystemError} `ip` failed, or said what nobody understands */
export async function readLinks(): Promise<Link[]> {
  const output = await runTool("ip", ["-details", "-json", "address"]);
  const parsed = z.array(linkSchema).safeParse(JSON.parse(output || "[]"));
  if (!parsed.success) {
    throw new SystemError(
      `cannot read the output of ip -json address: ${z.prettifyError(parsed.error)}`,
    );
  }
  return parsed.data;
}

let ipv6: Promise<boolean> | undefined;

/** Whether the host's kernel has IPv6 at all. */
export function hasIPv6(): Promise<boolean> {
  ipv6 ??= access("/proc/sys/net/ipv6").then(
    () => true,
    () => false,
  );
  return ipv6;
}

let ipv6Loopback: Promise<boolean> | undefined;

/** Whether programs of the host can listen on IPv6 (it may be switched off where the kernel has it). */
export function hasIPv6Loopback(): Promise<boolean> {
  ipv6Loopback ??= new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ host: "::1", port: 0, exclusive: true }, () =>
      server.close(() => resolve(true)),
    );
  });
  return ipv6Loopback;
}
