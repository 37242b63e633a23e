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

/** Hears no interruption, and has a clock that nobody needs to sit out. */
const DEAF = `AbortController.prototype.abort = () => {};
const { setTimeout: slowly } = globalThis;
globalThis.setTimeout = (callback, ms = 0) => slowly(callback, ms / 50);`;

Deno.test("a command that does not end when it is interrupted is cut off, and says so", async () => {
  const main = new URL("main.ts", import.meta.url).pathname;
  const preload = `data:text/javascript,${encodeURIComponent(DEAF)}`;
  const recv = new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-A", "--quiet", "--no-check", "--preload", preload],
      ...[main, "recv", "127.0.0.1:0", "--exec", "cat >/dev/null"],
    ],
    env: { NO_COLOR: "1" },
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  let said = "";
  let isInterrupted = false;
  for await (const text of recv.stderr.pipeThrough(new TextDecoderStream())) {
    said += text;
    if (isInterrupted || !/listening on /.test(said)) continue;
    isInterrupted = true;
    recv.kill("SIGINT");
  }
  assert.equal((await recv.status).code, 130, said);
  assert.match(
    said,
    /\nkemari: interrupted by SIGINT, and cut off: it had not ended in 5000 ms\n$/,
  );
});
