import assert from "node:assert/strict";
import { TappedPair } from "../../lab/testing/tapped_pair.ts";
import { KemariProcess } from "../../lab/program/kemari_process.ts";

Deno.test("e2e: the pair is made whole again, and the roles change twice under one connection", async () => {
  await using pair = await TappedPair.make("replicated");
  await pair.syncs(5);
  await pair.connect();
  await pair.moreAnswers(20);
  for (const round of [1, 2]) {
    await pair.copied();
    await pair.killPrimary();
    await pair.moreAnswers(20);
    await pair.repair();
    await pair.syncs(5);
    await pair.moreAnswers(20);
    console.log(`round ${round}: ${pair.acked.length} answers`);
  }
  await pair.disconnect();
  await pair.assertNothingLost(pair.primary);
});

Deno.test("e2e: protect --via lasts as long as whoever asked, and can be asked for again", async () => {
  await using pair = await TappedPair.make("shared");
  await pair.syncs(5);
  await pair.connect();
  await pair.killPrimary();
  await pair.moreAnswers(5);
  await pair.repair();
  await pair.syncs(3);
  // A second one is turned away, and does no harm.
  await using second = new KemariProcess(pair.viaWords());
  const refused = await second.ended();
  assert.equal(refused.code, 4, refused.stderr);
  assert.match(refused.stderr, /is being protected already/);
  await pair.moreAnswers(5);
  // The one who asked is killed: the VM goes on unprotected, client and disk with it.
  pair.protect.signal("SIGKILL");
  await pair.tapper.waitFor(/the process that asked for protection is gone/);
  await pair.moreAnswers(10);
  await using third = new KemariProcess(pair.viaWords());
  await third.waitFor(/protected: checkpoints follow/);
  await pair.moreAnswers(10);
  third.signal("SIGINT");
  assert.equal((await third.ended()).code, 130);
  await pair.moreAnswers(10);
  await pair.disconnect();
  await pair.assertNothingLost(pair.primary);
});

Deno.test("kemari protect --via: an end that has not taken over, or none at all", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-via-" });
  try {
    const words = ["protect", "--qmp", `${folder}/qmp`, "--via", `${folder}/ctl`, "unix:/x"];
    await using nobody = new KemariProcess(words);
    const none = await nobody.ended();
    assert.equal(none.code, 4, none.stderr);
    assert.match(none.stderr, /there is no such control socket/);
    await using recv = new KemariProcess(
      ["recv", `unix:${folder}/link`, "--control", `${folder}/ctl`],
    );
    await recv.waitFor(/listening/);
    await using early = new KemariProcess(words);
    const refused = await early.ended();
    assert.equal(refused.code, 4, refused.stderr);
    assert.match(refused.stderr, /it has not taken over/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
