/** For tests: the setup as its users start it, with a cache folder of its own. */
import assert from "node:assert/strict";

const SETUP = new URL("../setup.ts", import.meta.url);
const CONFIG = new URL("../../../deno.json", import.meta.url);

/** Starts it. */
export function start(args: readonly string[], env: Record<string, string>): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--config", CONFIG.pathname, SETUP.pathname, ...args],
    env: { KEMARI_QEMU: "", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Waits for its end. */
export async function finish(process: Deno.ChildProcess) {
  const { code, stdout, stderr } = await process.output();
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
}

/** Waits for a line on stderr; what it returns waits for the end and gives the rest. */
export async function waitForLine(process: Deno.ChildProcess, wanted: RegExp) {
  const reader = process.stderr.pipeThrough(new TextDecoderStream()).getReader();
  let stderr = "";
  const readMore = async () => {
    const { value, done } = await reader.read();
    stderr += value ?? "";
    return !done;
  };
  while (!wanted.test(stderr)) assert.ok(await readMore(), stderr);
  return async () => {
    while (await readMore());
    await process.stdout.cancel();
    return { code: (await process.status).code, stderr };
  };
}

/** Gives `body` the environment of an empty cache folder. */
export async function withCache(
  body: (env: Record<string, string>) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-setup-" });
  try {
    await body({ XDG_CACHE_HOME: folder });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
