/** The setup as its users see it: arguments, output, exit codes, and what a second run finds. */

import assert from "node:assert/strict";

const SETUP = new URL("./setup.ts", import.meta.url);
const CONFIG = new URL("../../deno.json", import.meta.url);

function start(args: readonly string[], env: Record<string, string>): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--config", CONFIG.pathname, SETUP.pathname, ...args],
    env: { KEMARI_QEMU: "", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

async function finish(process: Deno.ChildProcess) {
  const { code, stdout, stderr } = await process.output();
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
}

/** Waits for a line on stderr; what it returns waits for the end and gives the rest. */
async function waitForLine(process: Deno.ChildProcess, wanted: RegExp) {
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

async function withCache(body: (env: Record<string, string>) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-setup-" });
  try {
    await body({ XDG_CACHE_HOME: folder });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("setup refuses a part that it does not know, and names those it does", async () => {
  const { code, stdout, stderr } = await finish(start(["qemu12"], {}));
  assert.equal(code, 2);
  assert.equal(stdout, "");
  assert.match(stderr, /no part qemu12/);
  assert.match(stderr, /qemu11, qemu10, qemu7, qemu5, guest/);
});

Deno.test("setup says what is missing on a host that is not Debian", async () => {
  await withCache(async (env) => {
    const { code, stderr } = await finish(start(["guest"], { ...env, PATH: "/nowhere" }));
    assert.equal(code, 2);
    assert.match(stderr, /missing the program apt-get, the program dpkg-deb/);
    assert.match(stderr, /KEMARI_QEMU=/);
  });
});

Deno.test("setup refuses a KEMARI_QEMU that is none", async () => {
  for (const path of ["/nowhere/qemu", "/bin/true"]) {
    const { code, stderr } = await finish(start(["qemu11"], { KEMARI_QEMU: path }));
    assert.equal(code, 2, stderr);
    assert.match(stderr, /KEMARI_QEMU=.* cannot be used/);
    assert.match(stderr, /unset KEMARI_QEMU/);
  }
});

Deno.test("setup reports a cache folder that cannot be written", async () => {
  const { code, stderr } = await finish(start(["guest"], { XDG_CACHE_HOME: "/dev/null" }));
  assert.equal(code, 4);
  assert.match(stderr, /set XDG_CACHE_HOME/);
});

Deno.test("e2e: setup reports a mirror that cannot be reached, and how to name another", async () => {
  await withCache(async (env) => {
    const mirror = "http://127.0.0.1:9/debian";
    const { code, stderr } = await finish(
      start(["guest"], { ...env, KEMARI_DEBIAN_MIRROR: mirror }),
    );
    assert.equal(code, 4);
    assert.ok(stderr.includes(`check that ${mirror} can be reached`), stderr);
  });
});

Deno.test("e2e: a setup that was killed goes on, two at once share the work, a third needs no network", async () => {
  await withCache(async (env) => {
    const killed = start(["guest"], env);
    const ended = await waitForLine(killed, /downloading/);
    killed.kill("SIGKILL");
    await ended();

    const results = await Promise.all([1, 2].map(() => finish(start(["guest"], env))));
    for (const { code, stdout, stderr } of results) {
      assert.equal(code, 0, stderr);
      assert.match(stdout, /^guest \/.*initrd-.*\.cpio\n$/);
    }
    assert.equal(results.filter(({ stderr }) => stderr.includes("unpacking")).length, 1);

    const offline = { ...env, KEMARI_DEBIAN_MIRROR: "http://127.0.0.1:9/debian" };
    const again = await finish(start(["guest"], offline));
    assert.deepEqual([again.code, again.stdout, again.stderr], [0, results[0].stdout, ""]);
  });
});

Deno.test("e2e: SIGINT ends a setup with 130 and leaves no prefix that looks complete", async () => {
  await withCache(async (env) => {
    const process = start(["guest"], env);
    const ended = await waitForLine(process, /reading the indexes/);
    process.kill("SIGINT");
    const { code, stderr } = await ended();
    assert.equal(code, 130, stderr);
    assert.match(stderr, /goes on where it stopped/);
    await assert.rejects(Deno.stat(`${env.XDG_CACHE_HOME}/kemari/guest`), Deno.errors.NotFound);
  });
});
