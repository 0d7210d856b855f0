import assert from "node:assert/strict";
import { test } from "node:test";
import { api } from "./harness/api.js";
import { docker, dockerOk } from "./harness/docker.js";

test("docker version names hull and negotiates the API version", async () => {
  const server = JSON.parse(
    await dockerOk(["version", "--format", "{{json .Server}}"]),
  ) as {
    Platform: { Name: string };
    Version: string;
    APIVersion: string;
    ApiVersion: string;
    MinAPIVersion: string;
    Os: string;
    Arch: string;
    KernelVersion: string;
    Components: { Name: string; Version: string }[];
  };
  assert.match(server.Platform.Name, /hull/i);
  assert.equal(server.Os, "linux");
  assert.equal(server.Arch, "amd64");
  assert.match(server.ApiVersion ?? server.APIVersion, /^1\.\d+$/);
  assert.ok(server.Components.length > 0);
});

test("docker info shows the driver, the counts and how machines run", async () => {
  const info = JSON.parse(
    await dockerOk(["info", "--format", "{{json .}}"]),
  ) as Record<string, unknown>;
  assert.equal(info["OSType"], "linux");
  assert.equal(typeof info["ContainersRunning"], "number");
  assert.equal(typeof info["Images"], "number");
  assert.equal(info["LoggingDriver"], "json-file");
  assert.ok(info["ID"]);
  const text = await docker(["info"]);
  assert.equal(text.code, 0);
  assert.match(text.stdout, /kvm|tcg/i);
});

test("_ping answers GET and HEAD with Docker's headers and no body for HEAD", async () => {
  for (const path of ["/_ping", "/v1.24/_ping", "/v1.51/_ping"]) {
    const get = await api("GET", path);
    assert.equal(get.status, 200);
    assert.equal(get.text, "OK");
    assert.match(String(get.headers["api-version"]), /^1\.\d+$/);
    assert.equal(get.headers["ostype"], "linux");
    assert.match(String(get.headers["server"]), /\(linux\)/);
    assert.match(String(get.headers["cache-control"]), /no-cache/);
    const head = await api("HEAD", path);
    assert.equal(head.status, 200);
    assert.equal(head.text, "");
  }
});

test("an API version that is too new or too old is refused with Docker's words", async () => {
  const old = await api("GET", "/v1.10/version");
  assert.equal(old.status, 400);
  assert.match(old.text, /client version 1\.10 is too old/);
  const future = await api("GET", "/v1.99/version");
  assert.equal(future.status, 400);
  assert.match(future.text, /client version 1\.99 is too new/);
});

test("the CLI works with an older API version of its choice", async () => {
  const version = await dockerOk(
    ["version", "--format", "{{.Client.APIVersion}}"],
    { env: { DOCKER_API_VERSION: "1.43" } },
  );
  assert.equal(version, "1.43");
});
