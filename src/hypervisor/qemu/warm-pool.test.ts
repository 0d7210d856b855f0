import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { pino } from "pino";
import type { Furnishing, MachineExit } from "../index.js";
import {
  type Origins,
  type Pooled,
  type Poolable,
  WarmPool,
} from "./warm-pool.js";

class TestMachine implements Poolable {
  readonly exited: Promise<MachineExit>;
  end!: (reason: string) => void;
  killed = false;

  constructor() {
    this.exited = new Promise((resolve) => {
      this.end = (reason) => resolve({ reason, expected: false });
    });
  }

  kill(): Promise<void> {
    this.killed = true;
    this.end("killed");
    return Promise.resolve();
  }
}

/** A pool of two, whose machines are of the kind `key`; counts what happens to them. */
function setUp(
  t: TestContext,
  behaviour: {
    key?: () => string;
    available?: () => number;
    make?: () => boolean;
    /** Default: 2. */
    size?: number;
    origins?: Origins;
  } = {},
) {
  const { key, available, make, size, origins } = {
    key: () => "a",
    available: () => 0.9,
    make: () => true,
    size: 2,
    origins: undefined,
    ...behaviour,
  };
  const made: TestMachine[] = [];
  const discarded: Pooled<TestMachine>[] = [];
  const lines: string[] = [];
  const pool = new WarmPool<TestMachine>({
    size,
    ...(origins && { origins }),
    make: (furnishing) => {
      if (!make()) return Promise.resolve(undefined);
      const machine = new TestMachine();
      made.push(machine);
      return Promise.resolve({
        ...{ machine, nics: [], key: key() },
        ...(furnishing && { furnishing }),
      });
    },
    discarded: (pooled) => void discarded.push(pooled),
    availableMemory: available,
    log: pino({}, { write: (line) => void lines.push(line) }),
    quietMs: 5,
  });
  t.after(() => pool.close());
  return { pool, made, discarded, lines };
}

async function until(condition: () => boolean): Promise<void> {
  for (let waited = 0; !condition(); waited += 5) {
    assert.ok(waited < 10_000, "it never came");
    await sleep(5);
  }
}

test("the machine that has waited longest is given away, and replaced", async (t) => {
  const { pool, made } = setUp(t);
  await pool.fill();
  assert.equal(pool.length, 2);
  assert.equal(pool.take("a")?.machine, made[0]);
  assert.equal(pool.length, 1);
  await until(() => pool.length === 2);
  assert.equal(made.length, 3);
});

/** A wish for an image in a file that is there. */
function wishFor(path: string): Furnishing {
  return {
    image: { parts: [{ path, bytes: 512 }], readonly: true },
    blankBytes: 4096,
    program: { name: "true", path: "/bin" },
  };
}
const ONE = wishFor(process.execPath);
const OTHER = wishFor(import.meta.filename);

test("one machine is furnished as was wished last, and given to who wishes for that only", async (t) => {
  const { pool, made } = setUp(t);
  await pool.fill();
  assert.equal(pool.take("a", ONE)?.furnishing, undefined);
  await until(() => pool.length === 2);
  assert.equal(pool.take("a")?.machine, made[1]);
  assert.equal(pool.take("a", OTHER), undefined);
  assert.equal(pool.length, 1);
  const taken = pool.take("a", { ...ONE });
  assert.equal(taken?.machine, made[2]);
  assert.deepEqual(taken?.furnishing, ONE);
});

test("which one it would give can be told before", async (t) => {
  const { pool } = setUp(t);
  assert.equal(pool.choose("a", ONE), undefined);
  pool.take("a", ONE);
  await until(() => pool.length === 2);
  assert.equal(pool.choose("b"), undefined);
  const [special, any] = [pool.choose("a", ONE), pool.choose("a")];
  assert.notEqual(special, any);
  assert.equal(pool.take("a", ONE), special);
  assert.equal(pool.choose("a", ONE), any);
  assert.equal(pool.take("a"), any);
});

test("when another image is used its machine is furnished anew", async (t) => {
  const { pool, made } = setUp(t);
  pool.take("a", ONE);
  await until(() => pool.length === 2);
  assert.equal(pool.take("a", OTHER)?.machine, made[1]);
  await until(() => made.length === 4 && pool.length === 2);
  assert.ok(made[0]?.killed, "the machine for the first image is kept");
  assert.deepEqual(pool.take("a", OTHER)?.furnishing, OTHER);
});

test("no machine is furnished with an image that is gone", async (t) => {
  const { pool } = setUp(t);
  const gone = wishFor("/nowhere/image");
  pool.take("a", gone);
  await until(() => pool.length === 2);
  assert.equal(pool.take("a", gone)?.furnishing, undefined);
});

test("an empty pool gives nothing", async (t) => {
  const { pool } = setUp(t, { make: () => false });
  await pool.fill();
  assert.equal(pool.take("a"), undefined);
});

test("machines of another platform are ended", async (t) => {
  let key = "a";
  const { pool, made, discarded } = setUp(t, { key: () => key });
  await pool.fill();
  key = "b";
  assert.equal(pool.take("b"), undefined);
  await until(() => pool.length === 2);
  assert.deepEqual(
    made.map(({ killed }) => killed),
    [true, true, false, false],
  );
  assert.equal(discarded.length, 2);
  assert.equal(pool.take("b")?.key, "b");
});

test("a machine that ends is discarded, said, and replaced", async (t) => {
  const { pool, made, discarded, lines } = setUp(t);
  await pool.fill();
  made[0]?.end("QEMU was killed by SIGKILL");
  await until(() => made.length === 3 && pool.length === 2);
  assert.equal(discarded.length, 1);
  assert.equal(lines.length, 1);
  assert.match(String(lines[0]), /QEMU was killed by SIGKILL/);
});

test("one that was given away is no business of the pool's", async (t) => {
  const { pool, discarded, lines } = setUp(t);
  await pool.fill();
  const taken = pool.take("a");
  taken?.machine.end("it ended");
  await until(() => pool.length === 2);
  assert.equal(discarded.length + lines.length, 0);
});

test("it is not filled while the host is short of memory", async (t) => {
  let available = 0.15;
  const { pool, made } = setUp(t, { available: () => available });
  await pool.fill();
  assert.equal(made.length, 0);
  available = 0.5;
  await pool.fill();
  assert.equal(pool.length, 2);
});

test("it gives way when memory runs short, with a line in the log", async (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  let available = 0.5;
  const { pool, made, lines } = setUp(t, { available: () => available });
  await pool.fill();
  available = 0.05;
  t.mock.timers.tick(5000);
  await until(() => pool.length === 0);
  assert.ok(made.every(({ killed }) => killed));
  assert.match(lines.join(), /short of memory/);
});

test("a failure to make one is said once, and starts go on", async (t) => {
  const { pool, lines } = setUp(t, {
    make: () => {
      throw new Error("no room");
    },
  });
  await pool.fill();
  assert.equal(pool.take("a"), undefined);
  assert.equal(lines.length, 1);
  assert.match(String(lines[0]), /no room/);
});

test("when it is closed nothing is left, and nothing is made", async (t) => {
  const { pool, made } = setUp(t);
  await pool.fill();
  pool.take("a");
  await pool.close();
  await sleep(20);
  assert.equal(made.length, 2);
  assert.ok(made[1]?.killed);
  assert.equal(pool.length, 0);
});

/** What machines are forked from: one, once it was prepared. */
class TestOrigins implements Origins {
  prepared = 0;
  closed = 0;
  looked = 0;
  wish: Furnishing | undefined;
  #there = false;

  count = () => (this.#there ? 1 : 0);
  prepare = (wish?: Furnishing) => {
    this.prepared++;
    this.wish = wish;
    this.#there = true;
    return Promise.resolve();
  };
  letImagesGo = () => {
    this.looked++;
    return Promise.resolve();
  };
  close = () => {
    this.closed++;
    this.#there = false;
    return Promise.resolve();
  };
}

test("what machines are forked from comes before them", async (t) => {
  const origins = new TestOrigins();
  const seen: number[] = [];
  const { pool } = setUp(t, {
    origins,
    make: () => seen.push(origins.prepared) > 0,
  });
  await pool.fill();
  assert.deepEqual(seen, [1, 1]);
});

test("a pool without machines sees to what others are forked from", async (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  let available = 0.15;
  const origins = new TestOrigins();
  const { pool, made, lines } = setUp(t, {
    size: 0,
    origins,
    available: () => available,
  });
  await pool.fill();
  assert.equal(origins.prepared, 0, "the host is short of memory");
  available = 0.5;
  await pool.fill();
  assert.equal(origins.prepared, 1);
  assert.equal(pool.take("a", ONE), undefined);
  await until(() => origins.prepared === 2);
  assert.equal(origins.wish, ONE);
  available = 0.05;
  t.mock.timers.tick(5000);
  await until(() => origins.closed === 1);
  assert.equal(origins.looked, 1);
  assert.match(lines.join(), /short of memory/);
  available = 0.5;
  await pool.fill();
  assert.equal(origins.count(), 1);
  await pool.close();
  assert.equal(origins.count(), 0);
  assert.equal(made.length, 0);
});
