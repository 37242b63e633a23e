import assert from "node:assert/strict";
import { failover, ProtectedPair } from "../../lab/testing/protected_pair.ts";
import { KemariProcess } from "../../lab/program/kemari_process.ts";
import { QmpClient } from "../vm/qmp_client.ts";

/** A folder for RAM that goes with the pair. */
function ramDirOf(pair: ProtectedPair): string {
  const path = Deno.makeTempDirSync({ dir: "/dev/shm", prefix: "kemari-shape-" });
  pair.own({ [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) });
  return path;
}

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
  // The firmware waits for a key, or for a minute.
  await using pair = await ProtectedPair.start("11.1", ["-boot", "menu=on,splash-time=60000"]);
  const ramDir = ramDirOf(pair);
  const first = receiver(pair, ramDir);
  await first.listening();
  pair.protect("--sync-interval", "200");
  await pair.syncs(1);
  assert.deepEqual(pair.primary.console.lines, []);
  await using qmp = await QmpClient.connect(pair.primary.spareQmpPath);
  await qmp.execute("send-key", { keys: [{ type: "qcode", data: "ret" }] });
  await pair.booted();
  // The guest makes its boot's id when it is first asked: the replica has that by the next but one.
  await pair.syncs((await pair.syncs(1)).syncs + 2);
  await pair.assertRunning(pair.primary);
  first.signal("SIGKILL");
  await first.ended();
  await pair.primary.powerCut();

  const second = receiver(pair, ramDir);
  await second.waitFor(/going on with transaction \d+/);
  await pair.receiverStatus();
  await failover(pair);
  const { code, stdout, stderr } = await second.ended();
  assert.equal(code, 0, stderr);

  const file = `${pair.folder}/vm`;
  await Deno.writeFile(file, stdout);
  const inspect = await pair.own(new KemariProcess(["inspect", "--fields", file])).ended();
  assert.equal(inspect.code, 0, inspect.stderr);
  const fields = new TextDecoder().decode(inspect.stdout);
  assert.match(fields, /\bstate\b.*buffer/, "a section has another shape than at first");

  const third = await pair.recv();
  const secondary = await pair.secondary();
  const send = pair.own(new KemariProcess(["send", pair.link], { stdin: "piped" }));
  await send.write(stdout);
  await send.closeStdin();
  assert.equal((await send.ended(60_000)).code, 0, send.stderr);
  assert.equal((await third.ended(60_000)).code, 0, third.stderr);
  // What the primary said behind the last transaction was said by nobody here.
  await pair.assertTakenOver(secondary, 40);
});
