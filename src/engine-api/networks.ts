/** The endpoints of networks. What is not here is answered by missing.ts. */
import { z } from "zod";
import {
  endpointSettingsSchema,
  networkRequest,
} from "../containers/network-requests.js";
import type { ContainerService } from "../containers/service.js";
import { HullError, InvalidParameter } from "../errors.js";
import type { Filters } from "../filters.js";
import { createNetworkSchema } from "../networks/create-request.js";
import type { NetworkInfo, NetworkService } from "../networks/index.js";
import { readJson } from "./body.js";
import type { ApiRouter } from "./context.js";
import { queryFilters } from "./query.js";
import { untilFilter } from "./until-filter.js";

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

/** The body of `POST /networks/{id}/connect`. */
const connectSchema = z.object({
  Container: z.string().nullish(),
  EndpointConfig: endpointSettingsSchema,
});

/** The body of `POST /networks/{id}/disconnect`. */
const disconnectSchema = z.object({
  Container: z.string().nullish(),
  Force: z.boolean().nullish(),
});

/** Registers /networks. */
export function networkRoutes(
  networks: NetworkService,
  containers: Pick<ContainerService, "get" | "connections">,
): (router: ApiRouter) => void {
  const { connections } = containers;
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
      ctx.body = { ...describe(network), Containers: members(network) };
    });

    router.delete("/networks/:id", async (ctx) => {
      await networks.remove(ctx.params["id"] ?? "");
      ctx.status = 204;
    });

    router.post("/networks/create", async (ctx) => {
      const request = await readJson(ctx, createNetworkSchema);
      const { id } = await networks.create(request);
      ctx.status = 201;
      ctx.body = { Id: id, Warning: "" };
    });

    router.post("/networks/prune", async (ctx) => {
      const filters = queryFilters(ctx, PRUNE_FILTERS);
      const until = untilFilter(filters);
      const deleted: string[] = [];
      for (const network of networks.list()) {
        if (!isDangling(network)) continue;
        if (Date.parse(network.created) > until) continue;
        if (!filters.matchPairs("label", network.labels)) continue;
        if (
          filters.has("label!") &&
          filters.matchPairs("label!", network.labels)
        ) {
          continue;
        }
        try {
          await networks.remove(network.id);
          deleted.push(network.name);
        } catch (error) {
          // A container came onto it, or somebody else removed it meanwhile.
          if (!(error instanceof HullError)) throw error;
        }
      }
      ctx.body = { NetworksDeleted: deleted.length > 0 ? deleted : null };
    });

    router.post("/networks/:id/connect", async (ctx) => {
      const { Container, EndpointConfig } = await readJson(ctx, connectSchema);
      const container = containers.get(Container ?? "");
      await connections.connect(
        container,
        networkRequest(ctx.params["id"] ?? "", EndpointConfig),
      );
      ctx.status = 200;
    });

    router.post("/networks/:id/disconnect", async (ctx) => {
      const { Container, Force } = await readJson(ctx, disconnectSchema);
      const container = containers.get(Container ?? "");
      await connections.disconnect(
        container,
        ctx.params["id"] ?? "",
        Force ?? false,
      );
      ctx.status = 200;
    });
  };
}

/** @throws {InvalidParameter} a filter has an impossible value */
function matches(network: NetworkInfo, filters: Filters): boolean {
  for (const type of filters.get("type")) {
    if (type !== "custom" && type !== "builtin") {
      throw new InvalidParameter(`invalid filter: 'type'='${type}'`);
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
    EnableIPv6: network.enableIPv6,
    IPAM: {
      Driver: "default",
      Options: network.ipamOptions ?? null,
      Config: network.subnets.map(
        ({ subnet, gateway, ipRange, auxAddresses }) => ({
          Subnet: subnet,
          ...(ipRange && { IPRange: ipRange }),
          Gateway: gateway,
          ...(auxAddresses && { AuxiliaryAddresses: auxAddresses }),
        }),
      ),
    },
    Internal: network.internal,
    Attachable: network.attachable,
    Ingress: false,
    ConfigFrom: { Network: "" },
    ConfigOnly: false,
    Containers: {},
    Options: network.options,
    Labels: network.labels,
  };
}

/** NetworkContainer of the specification, by container ID. */
function members(network: NetworkInfo): Record<string, unknown> {
  return Object.fromEntries(
    network.endpoints.map((endpoint) => [
      endpoint.containerId,
      {
        Name: endpoint.containerName,
        EndpointID: endpoint.endpointId,
        MacAddress: endpoint.macAddress,
        IPv4Address: endpoint.ipv4Address,
        IPv6Address: endpoint.ipv6Address,
      },
    ]),
  );
}
