/** The setup as its users see it: arguments, output, exit codes. */

import assert from "node:assert/strict";
import { finish, start, withCache } from "./testing/setup_run.ts";

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
