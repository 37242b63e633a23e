/** What a setup leaves that was cut short, and what a second one finds; needs Debian's mirror. */

import assert from "node:assert/strict";
import { finish, start, waitForLine, withCache } from "./testing/setup_run.ts";

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
