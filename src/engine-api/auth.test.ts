import assert from "node:assert/strict";
import { test } from "node:test";
import { InvalidParameter } from "../errors.js";
import type { Credentials } from "../images/registry/credentials.js";
import { RegistryError } from "../images/registry/errors.js";
import { authRoutes, registryOf } from "./auth.js";
import { serve } from "./test-server.js";

/** A registry that knows one user. */
function login(domain: string, credentials: Credentials): Promise<void> {
  if (domain === "away.example") {
    throw new RegistryError("", 'Get "https://away.example/v2/": EOF');
  }
  if (credentials.username !== "ann" || credentials.password !== "secret") {
    throw new RegistryError(
      "UNAUTHORIZED",
      "unauthorized: authentication required",
      401,
    );
  }
  return Promise.resolve();
}

const ask = (
  serveraddress: string,
  password: unknown,
): [string, string, string] => [
  "POST",
  "/v1.51/auth",
  JSON.stringify({ username: "ann", password, serveraddress }),
];

test("good credentials are told to be so", async (t) => {
  const server = await serve(t, authRoutes({ login }));
  const answer = await server.request(...ask("localhost:5000", "secret"));
  assert.equal(answer.status, 200);
  assert.deepEqual(answer.json(), {
    IdentityToken: "",
    Status: "Login Succeeded",
  });
});

test("wrong credentials are 401, an unreachable registry 500, nonsense 400", async (t) => {
  const server = await serve(t, authRoutes({ login }));
  const wrong = await server.request(...ask("localhost:5000", "guess"));
  assert.equal(wrong.status, 401);
  assert.deepEqual(wrong.json(), {
    message: "unauthorized: authentication required",
  });
  const away = await server.request(...ask("https://away.example/v2/", ""));
  assert.equal(away.status, 500);
  assert.match(away.text, /away\.example/);
  const type = await server.request(...ask("localhost:5000", 5));
  assert.equal(type.status, 400);
  const address = await server.request(...ask("a b", ""));
  assert.equal(address.status, 400);
});

test("a server address is a host or an older client's URL", () => {
  for (const [address, registry] of [
    ["", "docker.io"],
    ["https://index.docker.io/v1/", "docker.io"],
    ["docker.io", "docker.io"],
    ["localhost:5000", "localhost:5000"],
    ["http://localhost:5000/v2/", "localhost:5000"],
    ["[::1]:5000", "[::1]:5000"],
  ] as const) {
    assert.equal(registryOf(address), registry);
  }
  for (const address of ["a b", "a:b", "user@host", "a:1:2"]) {
    assert.throws(() => registryOf(address), InvalidParameter);
  }
});
