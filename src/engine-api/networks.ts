/** The endpoints of networks. What is not here is answered by missing.ts. */
import { Forbidden, InvalidParameter, NotImplemented } from "../errors.js";
import type { Filters } from "../filters.js";
import type { NetworkInfo, NetworkService } from "../networks/index.js";
import type { ApiRouter } from "./context.js";
import { queryFilters } from "./query.js";

const LIST_FILTERS = [
  "dangling",
  "driver",
  "id",
  "label",
  "name",
  "scope",
  "type",
];
const PRUNE_FILTERS = ["until", "label", "label!"];

/** Registers /networks. */
export function networkRoutes(
  networks: NetworkService,
): (router: ApiRouter) => void {
  return (router) => {
    router.get("/networks", (ctx) => {
      const filters = queryFilters(ctx, LIST_FILTERS);
      ctx.body = networks
        .list()
        .filter((network) => matches(network, filters))
        .map((network) => describe(network));
    });

    router.get("/networks/:id", (ctx) => {
      const network = networks.get(ctx.params["id"] ?? "");
      ctx.body = { ...describe(network), Containers: containers(network) };
    });

    router.delete("/networks/:id", (ctx) => {
      const { name, predefined } = networks.get(ctx.params["id"] ?? "");
      if (predefined) {
        throw new Forbidden(
          `${name} is a pre-defined network and cannot be removed`,
        );
      }
      throw new NotImplemented("hull cannot do this yet: remove a network");
    });

    // Only networks that users made are ever pruned, and there are none yet.
    router.post("/networks/prune", (ctx) => {
      queryFilters(ctx, PRUNE_FILTERS);
      ctx.body = { NetworksDeleted: [] };
    });
  };
}

/** @throws {InvalidParameter} a filter has an impossible value */
function matches(network: NetworkInfo, filters: Filters): boolean {
  for (const type of filters.get("type")) {
    if (type !== "custom" && type !== "builtin") {
      throw new InvalidParameter(`invalid filter 'type=${type}'`);
    }
  }
  if (
    filters.has("dangling") &&
    filters.boolean("dangling", false) !== isDangling(network)
  ) {
    return false;
  }
  return (
    filters.exactMatch("driver", network.driver) &&
    filters.exactMatch("scope", "local") &&
    filters.exactMatch("type", network.predefined ? "builtin" : "custom") &&
    filters.match("id", network.id) &&
    filters.match("name", network.name) &&
    filters.matchPairs("label", network.labels)
  );
}

/** Nobody's and removable: predefined networks never count. */
function isDangling(network: NetworkInfo): boolean {
  return !network.predefined && network.endpoints.length === 0;
}

/** Network of the specification, as the list has it. */
function describe(network: NetworkInfo): Record<string, unknown> {
  return {
    Name: network.name,
    Id: network.id,
    Created: network.created,
    Scope: "local",
    Driver: network.driver,
    EnableIPv4: network.enableIPv4,
    EnableIPv6: false,
    IPAM: {
      Driver: "default",
      Options: null,
      Config: network.subnets.map(({ subnet, gateway }) => ({
        Subnet: subnet,
        Gateway: gateway,
      })),
    },
    Internal: network.internal,
    Attachable: false,
    Ingress: false,
    ConfigFrom: { Network: "" },
    ConfigOnly: false,
    Containers: {},
    Options: network.options,
    Labels: network.labels,
  };
}

/** NetworkContainer of the specification, by container ID. */
function containers(network: NetworkInfo): Record<string, unknown> {
  return Object.fromEntries(
    network.endpoints.map((endpoint) => [
      endpoint.containerId,
      {
        Name: endpoint.containerName,
        EndpointID: endpoint.endpointId,
        MacAddress: endpoint.macAddress,
        IPv4Address: endpoint.ipv4Address,
        IPv6Address: "",
      },
    ]),
  );
}
