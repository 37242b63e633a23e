import assert from "node:assert/strict";

/** What a script sees of `kemari` with these arguments, run from source. */
async function kemari(...args: string[]) {
  const main = new URL("main.ts", import.meta.url).pathname;
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "--no-check", main, ...args],
    env: { NO_COLOR: "1" },
    stdin: "null",
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

Deno.test("kemari --version and --help answer on stdout and exit with 0", async () => {
  const version = await kemari("--version");
  assert.match(version.stdout, /^kemari \d+\.\d+\.\d+\n$/);
  const help = await kemari("send", "--help");
  assert.match(help.stdout, /^Usage: kemari send /);
  for (const ended of [version, help]) assert.deepEqual([ended.code, ended.stderr], [0, ""]);
});

Deno.test("a wrong command line exits with 2 and says so on stderr only", async () => {
  const { code, stdout, stderr } = await kemari("recv", "stdio:", "--on-loss", "activate");
  assert.deepEqual([code, stdout], [2, ""]);
  assert.match(stderr, /^kemari: --on-loss activate needs --fence: [^\n]*\nhint: [^\n]*\n$/);
});

Deno.test("with --log-format json a failure is one JSON line", async () => {
  const { code, stdout, stderr } = await kemari("send", "--log-format", "json");
  assert.deepEqual([code, stdout], [2, ""]);
  const line = JSON.parse(stderr);
  assert.equal(line.exitCode, 2);
  assert.match(line.message, /missing required argument 'target'/);
});
