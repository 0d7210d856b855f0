import assert from "node:assert/strict";
import { test } from "node:test";
import { docker, dockerOk, inspect, ownContainers } from "./harness/docker.js";
import { busybox } from "./harness/environment.js";
import { terminal } from "./harness/terminal.js";
import { eventually, sleep } from "./harness/wait.js";

const { named } = ownContainers();

test("run -it is a real terminal: size, resize, echo, line editing, Ctrl-C, Ctrl-D", async () => {
  const name = named("tty");
  const tty = terminal(
    ["run", "-it", "--name", name, "-e", "PS1=prompt> ", busybox(), "sh"],
    { rows: 31, columns: 97 },
  );
  await tty.shows(/prompt> /);
  assert.equal((await inspect(name)).Config.Tty, true);

  tty.type("tty; stty size; echo TERM=$TERM\r");
  await tty.shows(/\/dev\/(pts\/0|console)\r\n31 97\r\nTERM=xterm\r\n/);
  await tty.shows(/prompt> /);

  tty.resize(44, 111);
  await eventually(async () => {
    tty.type("stty size\r");
    await tty.shows(/stty size\r\n44 111\r\n/, 3_000);
  });
  await tty.shows(/prompt> /);

  // Backspace takes a character away before the line is read.
  tty.type("echo mistakex\x7f\r");
  await tty.shows(/\r\nmistake\r\n/);
  await tty.shows(/prompt> /);

  // The shell edits lines in raw mode: Ctrl-C is a signal only once the command runs.
  tty.type("echo run''ning; sleep 1000\r");
  await tty.shows(/\r\nrunning\r\n/);
  await sleep(300);
  tty.type("\x03");
  await tty.shows(/prompt> /);
  tty.type("echo status $?\r");
  await tty.shows(/status 130\r\n/);

  tty.type("exit 9\r");
  assert.equal(await tty.exit, 9);
});

test("Ctrl-P Ctrl-Q leaves the container running, attach comes back to it", async () => {
  const name = named("detach");
  const first = terminal([
    "run",
    "-it",
    "--name",
    name,
    "-e",
    "PS1=prompt> ",
    busybox(),
    "sh",
  ]);
  await first.shows(/prompt> /);
  first.type("x=kept\r");
  await first.shows(/prompt> /);
  first.type("\x10\x11");
  assert.equal(await first.exit, 0);
  assert.equal((await inspect(name)).State.Running, true);

  const second = terminal(["attach", name]);
  second.type("\r");
  await second.shows(/prompt> /);
  second.type("echo x is $x\r");
  await second.shows(/x is kept\r\n/);
  second.type("exit 4\r");
  assert.equal(await second.exit, 4);
  assert.equal((await inspect(name)).State.ExitCode, 4);
});

test("detach keys of one's own", async () => {
  const name = named("detach-keys");
  const tty = terminal([
    "run",
    "-it",
    "--detach-keys",
    "ctrl-a,d",
    "--name",
    name,
    "-e",
    "PS1=prompt> ",
    busybox(),
    "sh",
  ]);
  await tty.shows(/prompt> /);
  tty.type("\x01d");
  assert.equal(await tty.exit, 0);
  assert.equal((await inspect(name)).State.Running, true);
});

test("exec -it has a terminal of its own, detaches and resizes", async () => {
  const name = named("exec-tty");
  await dockerOk(["run", "-d", "--name", name, busybox(), "sleep", "1000"]);
  const tty = terminal(["exec", "-it", "-e", "PS1=prompt> ", name, "sh"], {
    rows: 20,
    columns: 60,
  });
  await tty.shows(/prompt> /);
  tty.type("stty size; test -t 0 && test -t 1 && echo terminal\r");
  await tty.shows(/20 60\r\nterminal\r\n/);
  tty.resize(25, 70);
  await eventually(async () => {
    tty.type("stty size\r");
    await tty.shows(/stty size\r\n25 70\r\n/, 3_000);
  });
  tty.type("exit 5\r");
  assert.equal(await tty.exit, 5);

  const detached = terminal(["exec", "-it", "-e", "PS1=prompt> ", name, "sh"]);
  await detached.shows(/prompt> /);
  detached.type("\x10\x11");
  assert.equal(await detached.exit, 1);
  assert.match(
    detached.screen,
    /exec attach failed|detach|read escape sequence/i,
  );
});

test("a terminal shows both streams as one, with carriage returns", async () => {
  const tty = terminal([
    "run",
    "--rm",
    "-t",
    busybox(),
    "sh",
    "-c",
    "echo out; echo err >&2",
  ]);
  assert.equal(await tty.exit, 0);
  // Without -i the CLI leaves its own terminal as it is, which adds a carriage return of its own.
  assert.equal(tty.screen, "out\r\r\nerr\r\r\n");
});

test("-t is refused when standard input is no terminal", async () => {
  const { code, stderr } = await docker([
    "run",
    "--rm",
    "-it",
    busybox(),
    "true",
  ]);
  assert.equal(code, 1);
  assert.match(
    stderr,
    /the input device is not a TTY|cannot attach stdin to a TTY-enabled container/,
  );
});
