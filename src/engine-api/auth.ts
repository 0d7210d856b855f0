/** `POST /auth`: checks credentials for `docker login`. */
import { z } from "zod";
import { InvalidParameter, SystemError, Unauthorized } from "../errors.js";
import { credentialsOf } from "../images/registry/credentials.js";
import { RegistryError } from "../images/registry/errors.js";
import type { ImageService } from "../images/service.js";
import { readJson } from "./body.js";
import type { ApiRouter } from "./context.js";
import { clientGone } from "./response-stream.js";

const AuthConfig = z.looseObject({ serveraddress: z.string().nullish() });

export function authRoutes(images: Pick<ImageService, "login">) {
  return (router: ApiRouter): void => {
    router.post("/auth", async (ctx) => {
      const config = await readJson(ctx, AuthConfig);
      const domain = registryOf(config.serveraddress ?? "");
      try {
        await images.login(domain, credentialsOf(config), clientGone(ctx));
      } catch (error) {
        if (!(error instanceof RegistryError)) throw error;
        const { status, message } = error;
        throw status === 401 || status === 403
          ? new Unauthorized(message, { cause: error })
          : new SystemError(message, { cause: error });
      }
      ctx.body = { IdentityToken: "", Status: "Login Succeeded" };
    });
  };
}

/** Names under which clients know Docker Hub. */
const DOCKER_HUB = ["", "docker.io", "index.docker.io", "registry-1.docker.io"];

/**
 * The registry that a `serveraddress` (a host, or a URL as older clients have it) means.
 * @throws {InvalidParameter} it is neither
 */
export function registryOf(serverAddress: string): string {
  const host = serverAddress.replace(/^https?:\/\//, "").replace(/\/.*$/, "");
  if (DOCKER_HUB.includes(host)) return "docker.io";
  if (!/^[\w.-]+(:\d+)?$|^\[[0-9a-f:.]+\](:\d+)?$/i.test(host)) {
    throw new InvalidParameter(
      `invalid value for serveraddress: ${JSON.stringify(serverAddress)} is not a registry`,
    );
  }
  return host;
}
