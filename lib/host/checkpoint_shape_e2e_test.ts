import assert from "node:assert/strict";
import { failover, ProtectedPair } from "../../fixtures/protected_pair.ts";
import { KemariProcess } from "../../fixtures/watched_kemari.ts";

/** A recv with its RAM in files, whose stream on stdout is read by the test. */
function receiver(pair: ProtectedPair, ramDir: string): KemariProcess {
  const words = ["recv", pair.link, "--control", pair.recvControl, "--ram-dir", ramDir];
  return pair.own(new KemariProcess(words));
}

/**
 * What QEMU describes is the first pass. In the firmware the machine's devices have another shape
 * than in the guest's hands, whose checkpoints nobody describes.
 */
Deno.test("e2e: a VM protected from its firmware on outlives a killed recv, and kemari reads it", async () => {
  // The firmware waits for a key, so that protection has begun when it goes on.
  await using pair = await ProtectedPair.boot("11.1", ["-boot", "menu=on,splash-time=3000"]);
  const ramDir = await Deno.makeTempDir({ dir: "/dev/shm", prefix: "kemari-shape-" });
  try {
    const first = receiver(pair, ramDir);
    await first.listening();
    const { lines } = pair.primary.console;
    await pair.reboot(async () => {
      // The last words from before the reset are here by then.
      await new Promise((resolve) => setTimeout(resolve, 300));
      const before = lines.length;
      pair.protect("--sync-interval", "200");
      await pair.syncs(1);
      assert.equal(lines.length, before, "protected before the kernel says anything");
    });
    await pair.syncs(10);
    await pair.assertRunning(pair.primary);
    first.signal("SIGKILL");
    await first.ended();
    await pair.primary.powerCut();

    const second = receiver(pair, ramDir);
    await second.waitFor(/going on with transaction \d+/);
    await second.listening();
    await failover(pair);
    const { stdout, stderr } = await second.ended();

    const file = `${pair.folder}/vm`;
    await Deno.writeFile(file, stdout);
    const inspect = await pair.own(new KemariProcess(["inspect", file])).ended();
    assert.equal(inspect.code, 0, inspect.stderr + stderr);
    assert.match(new TextDecoder().decode(inspect.stdout), /hpet/);

    const third = await pair.recv();
    const secondary = await pair.secondary();
    const send = pair.own(new KemariProcess(["send", pair.link], { stdin: "piped" }));
    await send.write(stdout);
    await send.closeStdin();
    assert.equal((await send.ended(60_000)).code, 0, send.stderr);
    assert.equal((await third.ended(60_000)).code, 0, third.stderr);
    // What the primary said behind the last transaction was said by nobody here.
    await pair.assertTakenOver(secondary, 40);
  } finally {
    await Deno.remove(ramDir, { recursive: true });
  }
});
