import type Router from "@koa/router";
import type { RouterContext } from "@koa/router";
import type { ApiVersion } from "./version.js";

/** What the server's own layers leave for the handlers. */
export interface ApiState {
  /** The API version the client speaks; the newest one when it named none. */
  version: ApiVersion;
  /** When the request came in, by the clock of `performance.now()`. */
  receivedAt: number;
}
/** A handler's context. */
export type ApiContext = RouterContext<ApiState>;
/** Where a group of endpoints is registered, with unversioned paths. */
export type ApiRouter = Router<ApiState>;
