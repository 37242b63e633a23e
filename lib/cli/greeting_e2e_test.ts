/** What stands before the first frame on a pipe: a login shell's greeting. */
import assert from "node:assert/strict";
import { loadStream } from "../lab/recording/streams.ts";
import { FROM_SOURCE_WORDS, KemariProcess } from "../lab/program/kemari_process.ts";

Deno.test("a login shell's greeting in front of kemari's bytes is shown, with what to do about it", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-greeting-" });
  try {
    const path = `${folder}/stream`;
    await Deno.writeFile(path, loadStream("plain-11.1-virtio"));
    const remote = `${FROM_SOURCE_WORDS} recv stdio: --exec 'cat >/dev/null'`;
    for (
      const [before, code, shown] of [
        ["", 0, undefined],
        ["echo 'Welcome to host2'; echo '3 updates';", 3, "Welcome to host2( 3 updates)?"],
      ] as const
    ) {
      await using send = new KemariProcess(["send", `exec:${before} ${remote}`], {
        stdin: { path },
      });
      const ended = await send.ended();
      assert.equal(ended.code, code, ended.stderr);
      if (shown === undefined) continue;
      assert.match(ended.stderr, new RegExp(`does not speak kemari: .*; the peer said "${shown}"`));
      assert.match(ended.stderr, /\nhint: .*\.bashrc, \.profile .*interactive shells only/);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
