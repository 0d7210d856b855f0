import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { applyChanges, applyToConfig } from "./config.js";
import { parseDockerfile, parseInstruction } from "./parse.js";
import { expand, expandWords, parsePairs } from "./words.js";

describe("Dockerfiles", () => {
  test("lines are joined, comments and empty lines between them left out", () => {
    const { instructions } = parseDockerfile(
      '# a comment\nfrom base AS one\nRUN a && \\\n  # why\n  b "c  d" \\\n\n  && e\n\nCMD ["x", "y z"]\n',
    );
    assert.deepEqual(
      instructions.map(({ keyword, rest, json, line }) => ({
        keyword,
        rest,
        json,
        line,
      })),
      [
        { keyword: "FROM", rest: "base AS one", json: undefined, line: 2 },
        {
          keyword: "RUN",
          rest: 'a &&   b "c  d"   && e',
          json: undefined,
          line: 3,
        },
        { keyword: "CMD", rest: '["x", "y z"]', json: ["x", "y z"], line: 9 },
      ],
    );
  });

  test("the escape directive, flags", () => {
    const { instructions, escape } = parseDockerfile(
      "# escape=`\nCOPY --from=0 --chown=1:2 a `\n  b\\ /c/\n",
    );
    assert.equal(escape, "`");
    assert.deepEqual(instructions[0]?.flags, [
      ["from", "0"],
      ["chown", "1:2"],
    ]);
    assert.equal(instructions[0]?.rest, "a   b\\ /c/");
  });

  test("what is wrong is said with its line", () => {
    for (const [text, words] of [
      ["", /no instructions/],
      ["FROM a\nBOGUS x", /line 2: unknown instruction: BOGUS/],
      [
        "FROM a\nRUN <<EOF\nx\nEOF",
        /line 2: the here-document feature requires BuildKit/,
      ],
      ["FROM", /line 1: FROM requires/],
      ["# escape=x\nFROM a", /invalid ESCAPE/],
    ] as const)
      assert.throws(() => parseDockerfile(text), words);
  });

  test("variables and quotes", () => {
    const variables = new Map([
      ["A", "one"],
      ["EMPTY", ""],
      ["B", "x y"],
    ]);
    for (const [text, result] of [
      ["$A-${A}b", "one-oneb"],
      ["'$A' \"$A\" \\$A", "$A one $A"],
      ["${NONE:-d$A}${EMPTY-e}${EMPTY:-f}", "donef"],
      ["${A:+set}${NONE+unset}", "set"],
      ["a\\ b", "a b"],
    ] as const)
      assert.equal(expand(text, variables, "\\"), result);
    assert.deepEqual(expandWords("$B 'c d' e", variables, "\\"), [
      "x y",
      "c d",
      "e",
    ]);
    assert.deepEqual(parsePairs("ENV", 'A="b c" D=e\\ f', "\\"), [
      ["A", '"b c"'],
      ["D", "e\\ f"],
    ]);
    assert.deepEqual(parsePairs("ENV", "A some value", "\\"), [
      ["A", "some value"],
    ]);
    for (const text of ["'open", '"open', "${A", "${A!x}", "${NONE:?why}"])
      assert.throws(() => expand(text, variables, "\\"));
  });

  test("instructions that change the config", () => {
    const config = applyChanges({ Cmd: ["old"], Env: ["A=1"] }, [
      "ENV A=2 B=$A",
      "WORKDIR /a",
      "WORKDIR b",
      "EXPOSE 80 53/udp",
      "VOLUME /v /w",
      "USER me",
      "LABEL x=y",
      "STOPSIGNAL SIGINT",
      "HEALTHCHECK --interval=1m30s --retries=3 CMD check it",
      "ONBUILD RUN later",
    ]);
    assert.deepEqual(config, {
      Cmd: ["old"],
      Env: ["A=2", "B=1"],
      WorkingDir: "/a/b",
      ExposedPorts: { "80/tcp": {}, "53/udp": {} },
      Volumes: { "/v": {}, "/w": {} },
      User: "me",
      Labels: { x: "y" },
      StopSignal: "SIGINT",
      Healthcheck: {
        Test: ["CMD-SHELL", "check it"],
        Interval: 90e9,
        Retries: 3,
      },
      OnBuild: ["RUN later"],
    });
    assert.throws(
      () => applyChanges({}, ["RUN x"]),
      /RUN is not a valid change command/,
    );
    assert.throws(
      () => applyChanges({}, ["EXPOSE many"]),
      /invalid containerPort: many/,
    );
    const entry = applyToConfig(
      { Cmd: ["x"] },
      parseInstruction('ENTRYPOINT ["e"]', 1),
      new Map(),
      "\\",
    );
    assert.deepEqual(entry, {
      config: { Entrypoint: ["e"] },
      words: 'ENTRYPOINT ["e"]',
    });
  });
});
