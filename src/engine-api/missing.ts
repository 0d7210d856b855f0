/** Operations of the Engine API that are not built: said so, rather than "page not found". */
import { NotImplemented, Unavailable } from "../errors.js";
import type { ApiRouter } from "./context.js";

const NOT_A_MANAGER =
  'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.';
const NO_SWARM = "hull has no swarm mode: it runs containers on one host";
const NOT_IN_SWARM = "This node is not part of a swarm";

/** Swarm's operations, which answer as an engine does that is in no swarm. */
const SWARM: readonly (readonly [string, string])[] = [
  ["GET /swarm", NOT_A_MANAGER],
  ["POST /swarm/init", NO_SWARM],
  ["POST /swarm/join", NO_SWARM],
  ["POST /swarm/leave", NOT_IN_SWARM],
  ["POST /swarm/update", NOT_A_MANAGER],
  ["GET /swarm/unlockkey", NOT_A_MANAGER],
  ["POST /swarm/unlock", NOT_A_MANAGER],
  ["GET /nodes", NOT_A_MANAGER],
  ["GET /nodes/:id", NOT_A_MANAGER],
  ["DELETE /nodes/:id", NOT_A_MANAGER],
  ["POST /nodes/:id/update", NOT_A_MANAGER],
  ["GET /services", NOT_A_MANAGER],
  ["POST /services/create", NOT_A_MANAGER],
  ["GET /services/:id", NOT_A_MANAGER],
  ["DELETE /services/:id", NOT_A_MANAGER],
  ["POST /services/:id/update", NOT_A_MANAGER],
  ["GET /services/:id/logs", NOT_A_MANAGER],
  ["GET /tasks", NOT_A_MANAGER],
  ["GET /tasks/:id", NOT_A_MANAGER],
  ["GET /tasks/:id/logs", NOT_A_MANAGER],
  ["GET /secrets", NOT_A_MANAGER],
  ["POST /secrets/create", NOT_A_MANAGER],
  ["GET /secrets/:id", NOT_A_MANAGER],
  ["DELETE /secrets/:id", NOT_A_MANAGER],
  ["POST /secrets/:id/update", NOT_A_MANAGER],
  ["GET /configs", NOT_A_MANAGER],
  ["POST /configs/create", NOT_A_MANAGER],
  ["GET /configs/:id", NOT_A_MANAGER],
  ["DELETE /configs/:id", NOT_A_MANAGER],
  ["POST /configs/:id/update", NOT_A_MANAGER],
];

/** Every other operation of version 1.51, with what it does in the specification's words. */
const OPERATIONS: readonly (readonly [string, string])[] = [
  ["GET /containers/json", "list containers"],
  ["POST /containers/create", "create a container"],
  ["GET /containers/:id/json", "inspect a container"],
  ["GET /containers/:id/top", "list processes running inside a container"],
  ["GET /containers/:id/logs", "get container logs"],
  ["POST /containers/:id/resize", "resize a container TTY"],
  ["POST /containers/:id/start", "start a container"],
  ["POST /containers/:id/stop", "stop a container"],
  ["POST /containers/:id/restart", "restart a container"],
  ["POST /containers/:id/kill", "kill a container"],
  ["POST /containers/:id/rename", "rename a container"],
  ["POST /containers/:id/pause", "pause a container"],
  ["POST /containers/:id/unpause", "unpause a container"],
  ["POST /containers/:id/attach", "attach to a container"],
  ["GET /containers/:id/attach/ws", "attach to a container via a websocket"],
  ["POST /containers/:id/wait", "wait for a container"],
  ["DELETE /containers/:id", "remove a container"],
  ["POST /containers/prune", "delete stopped containers"],
  ["GET /images/json", "list Images"],
  ["POST /images/create", "create an image"],
  ["GET /images/*name/json", "inspect an image"],
  ["GET /images/*name/history", "get the history of an image"],
  ["POST /images/*name/tag", "tag an image"],
  ["DELETE /images/*name", "remove an image"],
  ["GET /images/search", "search images"],
  ["POST /images/prune", "delete unused images"],
  ["POST /auth", "check auth configuration"],
  ["GET /system/df", "get data usage information"],
  ["POST /containers/:id/exec", "create an exec instance"],
  ["POST /exec/:id/start", "start an exec instance"],
  ["POST /exec/:id/resize", "resize an exec instance"],
  ["GET /exec/:id/json", "inspect an exec instance"],
  ["GET /networks", "list networks"],
  ["GET /networks/:id", "inspect a network"],
  ["DELETE /networks/:id", "remove a network"],
  ["POST /networks/create", "create a network"],
  ["POST /networks/:id/connect", "connect a container to a network"],
  ["POST /networks/:id/disconnect", "disconnect a container from a network"],
  ["POST /networks/prune", "delete unused networks"],
  ["GET /plugins/privileges", "get plugin privileges"],
  ["POST /plugins/pull", "install a plugin"],
  ["POST /plugins/create", "create a plugin"],
  ["GET /distribution/*name/json", "get image information from the registry"],
  ["POST /session", "initialize interactive session"],
  ["POST /grpc", "start a build session over gRPC"],
];

/**
 * Registers an answer for each operation of the specification. To be called when all that is built
 * is registered: the router takes the first route that matches.
 */
export function missingRoutes(router: ApiRouter): void {
  for (const [operation, message] of SWARM) {
    register(router, operation, () => {
      throw new Unavailable(message);
    });
  }
  for (const [operation, summary] of OPERATIONS) {
    register(router, operation, () => {
      throw new NotImplemented(`hull cannot do this yet: ${summary}`);
    });
  }
}

function register(
  router: ApiRouter,
  operation: string,
  answer: () => never,
): void {
  const [method = "", path = ""] = operation.split(" ");
  router.register(path, [method], answer);
}
