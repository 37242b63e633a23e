import assert from "node:assert/strict";

const EXECUTABLE = new URL("../dist/kemari", import.meta.url).pathname;

/** Runs the compiled file in an environment that has nothing but PATH and `env`. */
async function kemari(args: readonly string[], env: Record<string, string>, cwd?: string) {
  const { code, stdout, stderr } = await new Deno.Command(EXECUTABLE, {
    args: [...args],
    cwd,
    clearEnv: true,
    env: { PATH: "/usr/bin:/bin", ...env },
    stdin: "null",
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

/** Gives `body` an empty folder for the time of the test. */
async function inFolder(body: (folder: string) => Promise<void>) {
  const folder = await Deno.makeTempDir({ prefix: "kemari-compile-test-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("dist/kemari answers on a machine that has never seen it, and again", () =>
  inFolder(async (folder) => {
    for (const start of ["first", "second"]) {
      const ended = await kemari(["--version"], { HOME: folder });
      assert.deepEqual([ended.code, ended.stderr], [0, ""], start);
      assert.match(ended.stdout, /^kemari \d+\.\d+\.\d+\n$/);
    }
    assert.equal((await kemari(["--version"], { TMPDIR: folder })).code, 0);
  }));

Deno.test("dist/kemari may be started for the first time by many at once", () =>
  inFolder(async (folder) => {
    const all = await Promise.all(
      Array.from({ length: 4 }, () => kemari(["send", "--help"], { HOME: folder })),
    );
    for (const ended of all) {
      assert.deepEqual([ended.code, ended.stderr], [0, ""]);
      assert.match(ended.stdout, /^Usage: kemari send /);
    }
  }));

Deno.test("dist/kemari passes exit codes on and keeps stdout clean", () =>
  inFolder(async (folder) => {
    const ended = await kemari(["send"], { HOME: folder });
    assert.deepEqual([ended.code, ended.stdout], [2, ""]);
    assert.match(ended.stderr, /^kemari: missing required argument/);
  }));

Deno.test("dist/kemari does not care about the project it is started in", () =>
  inFolder(async (folder) => {
    for (const name of ["deno.json", "deno.lock", "package.json", ".env", ".npmrc"]) {
      await Deno.writeTextFile(`${folder}/${name}`, "{ this is no JSON");
    }
    const ended = await kemari(["--version"], { HOME: `${folder}/home` }, folder);
    assert.deepEqual([ended.code, ended.stderr], [0, ""]);
  }));

Deno.test("dist/kemari finds every command's code", () =>
  inFolder(async (folder) => {
    // A path that is not there: each command gets as far as finding that out by itself.
    const nowhere = `${folder}/nowhere`;
    for (const args of [["status", nowhere], ["failover", nowhere], ["inspect", nowhere]]) {
      const ended = await kemari(args, { HOME: folder });
      assert.deepEqual([ended.code, ended.stdout], [4, ""], `${args[0]}: ${ended.stderr}`);
    }
  }));
