import assert from "node:assert/strict";
import { test } from "node:test";
import { InvalidParameter } from "../errors.js";
import { hostConfigSchema } from "./create-request.js";
import { checkIsolation } from "./isolation.js";

const check = (host: object) => checkIsolation(hostConfigSchema.parse(host));
const refused = (host: object, message: RegExp) =>
  assert.throws(
    () => check(host),
    (error) => error instanceof InvalidParameter && message.test(error.message),
  );

test("what a machine of its own gives anyway passes", () => {
  check({});
  check({
    IpcMode: "shareable",
    CgroupnsMode: "private",
    UsernsMode: "host",
    SecurityOpt: [
      "no-new-privileges",
      "no-new-privileges:true",
      "seccomp=unconfined",
      "apparmor=unconfined",
      "label=disable",
    ],
  });
});

test("what would have to be the host's or another container's is refused by name", () => {
  refused(
    { PidMode: "host" },
    /cannot use the PID mode "host" \(HostConfig\.PidMode\)/,
  );
  refused({ IpcMode: "container:x" }, /HostConfig\.IpcMode/);
  refused({ UTSMode: "host" }, /HostConfig\.UTSMode/);
  refused({ CgroupnsMode: "host" }, /HostConfig\.CgroupnsMode/);
  refused({ PidMode: "odd" }, /^invalid PID mode: odd$/);
  refused({ Devices: [{}] }, /host devices \(HostConfig\.Devices\)/);
  refused({ SecurityOpt: ["seccomp={}"] }, /a profile of seccomp/);
  refused({ SecurityOpt: ["label=type:x"] }, /SELinux/);
  refused({ SecurityOpt: ["odd"] }, /^invalid --security-opt 2: "odd"$/);
});
