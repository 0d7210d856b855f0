import assert from "node:assert/strict";
import { test } from "node:test";
import {
  addressOfReverseName,
  type Member,
  NameDirectory,
} from "./name-directory.js";

function member(containerId: string, network: string, more: object): Member {
  return {
    containerId,
    networkId: `id-of-${network}`,
    networkName: network,
    names: [],
    addresses: [],
    links: {},
    outward: true,
    ...more,
  };
}

function directory(): NameDirectory {
  const names = new NameDirectory();
  names.set(
    member("web", "front", {
      names: ["web", "www", "0123456789ab"],
      addresses: ["10.0.1.2", "fd00::2"],
    }),
  );
  names.set(
    member("web2", "front", {
      names: ["web2", "www"],
      addresses: ["10.0.1.3"],
    }),
  );
  names.set(
    member("db", "back", {
      names: ["db"],
      addresses: ["10.0.2.2"],
      outward: false,
    }),
  );
  names.set(
    member("client", "front", {
      names: ["client"],
      addresses: ["10.0.1.9"],
      links: { shop: "web2" },
    }),
  );
  return names;
}

test("a name is found on the networks of the one who asks, whatever its case", () => {
  const names = directory();
  assert.deepEqual(names.lookup("client", "WEB"), ["10.0.1.2", "fd00::2"]);
  assert.deepEqual(names.lookup("client", "0123456789ab"), [
    "10.0.1.2",
    "fd00::2",
  ]);
  assert.deepEqual(names.lookup("client", "web.front"), [
    "10.0.1.2",
    "fd00::2",
  ]);
  assert.equal(names.lookup("client", "web.back"), undefined);
  assert.equal(names.lookup("client", "db"), undefined);
  assert.equal(names.lookup("db", "web"), undefined);
  names.set(
    member("client", "back", { names: ["client"], addresses: ["10.0.2.9"] }),
  );
  assert.deepEqual(names.lookup("client", "db"), ["10.0.2.2"]);
  names.remove("db", "id-of-back");
  assert.equal(names.lookup("client", "db"), undefined);
});

test("a name of several has the addresses of all, a link only for its owner", () => {
  const names = directory();
  assert.deepEqual(names.lookup("client", "www"), [
    "10.0.1.2",
    "fd00::2",
    "10.0.1.3",
  ]);
  assert.deepEqual(names.lookup("client", "shop"), ["10.0.1.3"]);
  assert.equal(names.lookup("web", "shop"), undefined);
});

test("an address has its owner and its name", () => {
  const names = directory();
  assert.equal(names.ownerOf("id-of-front", "10.0.1.3"), "web2");
  assert.equal(names.ownerOf("id-of-back", "10.0.1.3"), undefined);
  assert.equal(names.reverse("client", "fd00::2"), "web.front");
  assert.equal(names.reverse("client", "10.0.2.2"), undefined);
});

test("a container reaches outside by any network that leads there", () => {
  const names = directory();
  assert.equal(names.reachesOutside("client"), true);
  assert.equal(names.reachesOutside("db"), false);
  assert.equal(names.reachesOutside("nobody"), false);
});

test("names for reverse lookup are read in both families, and nothing else is", () => {
  assert.equal(addressOfReverseName("2.1.0.10.in-addr.arpa"), "10.0.1.2");
  const digits = `2${".0".repeat(27)}.0.0.d.f`;
  assert.equal(addressOfReverseName(`${digits}.IP6.ARPA`), "fd00::2");
  for (const name of [
    "1.0.10.in-addr.arpa",
    "999.1.0.10.in-addr.arpa",
    "2.ip6.arpa",
    "web",
  ]) {
    assert.equal(addressOfReverseName(name), undefined, name);
  }
});
