/** Operations of the Engine API that hull has nothing to do with, answered as by an engine without them. */
import { InvalidParameter, Unavailable } from "../errors.js";
import type { ApiRouter } from "./context.js";
import { isUpgrade } from "./upgrade.js";

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

/** What a client of BuildKit reads that wants a session with the builder. */
const NO_BUILDKIT =
  "hull has no BuildKit: build with the classic builder (DOCKER_BUILDKIT=0)";

/** Registers the operations that hull has no service for. */
export function missingRoutes(router: ApiRouter): void {
  for (const [operation, message] of SWARM) {
    const [method = "", path = ""] = operation.split(" ");
    router.register(path, [method], () => {
      throw new Unavailable(message);
    });
  }
  for (const path of ["/session", "/grpc"]) {
    router.post(path, (ctx) => {
      throw new InvalidParameter(
        isUpgrade(ctx.req) ? NO_BUILDKIT : "no upgrade proto in request",
      );
    });
  }
}
