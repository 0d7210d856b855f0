import assert from "node:assert/strict";
import { after, test } from "node:test";
import {
  docker,
  dockerOk,
  removeContainers,
  start,
  uniqueName,
} from "./harness/docker.js";
import { busybox, imageRef } from "./harness/environment.js";
import { sleep } from "./harness/wait.js";

const name = uniqueName("events");
after(() => removeContainers(name));

interface Event {
  Type: string;
  Action: string;
  scope: string;
  time: number;
  timeNano: number;
  Actor: { ID: string; Attributes: Record<string, string> };
}

test("events follow what happens to a container, in order and with its attributes", async () => {
  const follow = start([
    "events",
    "--format",
    "{{json .}}",
    "--filter",
    `container=${name}`,
  ]);
  await sleep(300);
  const since = Math.floor(Date.now() / 1000) - 1;
  await docker([
    "run",
    "--name",
    name,
    "--label",
    "colour=blue",
    busybox(),
    "sh",
    "-c",
    "exit 3",
  ]);
  await dockerOk(["rm", name]);
  await follow.stdoutMatches(/"destroy"/);
  follow.kill("SIGKILL");
  const events = follow.stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Event)
    .filter((event) => event.Type === "container");
  assert.deepEqual(
    events.map((event) => event.Action),
    ["create", "attach", "start", "die", "destroy"],
  );
  for (const event of events) {
    assert.equal(event.scope, "local");
    assert.equal(Math.floor(event.timeNano / 1e9), event.time);
    assert.equal(event.Actor.Attributes["name"], name);
    assert.equal(event.Actor.Attributes["image"], busybox());
    assert.equal(event.Actor.Attributes["colour"], "blue");
  }
  assert.equal(events[3]?.Actor.Attributes["exitCode"], "3");

  // The same again out of the past.
  const past = await dockerOk([
    "events",
    "--since",
    String(since),
    "--until",
    String(Math.floor(Date.now() / 1000) + 1),
    "--filter",
    `container=${name}`,
    "--filter",
    "type=container",
    "--format",
    "{{.Action}}",
  ]);
  assert.deepEqual(past.split("\n"), [
    "create",
    "attach",
    "start",
    "die",
    "destroy",
  ]);
});

test("events are filtered by type, action, label and image", async () => {
  const since = String(Math.floor(Date.now() / 1000));
  const created = uniqueName("events-filter");
  await dockerOk([
    "create",
    "--name",
    created,
    "--label",
    "colour=red",
    busybox(),
  ]);
  await dockerOk(["tag", busybox(), "events/tagged:1"]);
  await dockerOk(["rmi", "events/tagged:1"]);
  await dockerOk(["rm", created]);
  const events = async (...filters: string[]) =>
    (
      await dockerOk([
        "events",
        "--since",
        since,
        "--until",
        String(Math.floor(Date.now() / 1000) + 1),
        "--format",
        "{{.Type}} {{.Action}}",
        ...filters.flatMap((filter) => ["--filter", filter]),
      ])
    )
      .split("\n")
      .filter(Boolean);
  assert.deepEqual(await events("label=colour=red"), [
    "container create",
    "container destroy",
  ]);
  assert.deepEqual(await events("event=destroy", `container=${created}`), [
    "container destroy",
  ]);
  assert.deepEqual(await events("type=image", "event=tag"), ["image tag"]);
  assert.deepEqual(await events("type=image", "event=untag"), ["image untag"]);
});

test("a pull and a removal are told", async () => {
  const image = imageRef("plain");
  await docker(["rmi", "-f", image]);
  const since = String(Math.floor(Date.now() / 1000));
  await dockerOk(["pull", "-q", image]);
  await dockerOk(["rmi", image]);
  const out = await dockerOk([
    "events",
    "--since",
    since,
    "--until",
    String(Math.floor(Date.now() / 1000) + 1),
    "--filter",
    "type=image",
    "--format",
    "{{.Action}}",
  ]);
  assert.match(out, /^pull$/m);
  assert.match(out, /^untag$/m);
  assert.match(out, /^delete$/m);
});
