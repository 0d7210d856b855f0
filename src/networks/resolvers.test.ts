import assert from "node:assert/strict";
import { test } from "node:test";
import { InvalidParameter } from "../errors.js";
import { Resolvers } from "./resolvers.js";

const host = () => ({
  nameservers: ["192.0.2.1"],
  search: ["lan"],
  options: ["edns0"],
});
const nothing = { dns: [], dnsSearch: [], dnsOptions: [] };

test("without settings containers get what the host has", () => {
  assert.deepEqual(new Resolvers(nothing, host).read(), {
    nameservers: ["192.0.2.1"],
    search: ["lan"],
    dnsOptions: ["edns0"],
  });
});

test("a network's own resolver replaces the host's", () => {
  const { nameservers } = new Resolvers(nothing, host).read("10.0.2.3");
  assert.deepEqual(nameservers, ["10.0.2.3"]);
});

test("each setting replaces its part, also on a network with its own resolver", () => {
  const resolvers = new Resolvers({ ...nothing, dns: ["9.9.9.9"] }, host);
  assert.deepEqual(resolvers.read("10.0.2.3"), {
    nameservers: ["9.9.9.9"],
    search: ["lan"],
    dnsOptions: ["edns0"],
  });
});

test("a resolver that is no address is refused by name", () => {
  assert.throws(
    () => new Resolvers({ ...nothing, dns: ["dns.example"] }),
    (error: Error) =>
      error instanceof InvalidParameter && /dns\.example/.test(error.message),
  );
});
