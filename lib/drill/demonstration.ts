/**
 * The drill without QEMU: the checkpoints of a recorded QEMU go through real kemari processes, the
 * sender is killed, and the stream that the secondary activates is compared with the recording.
 */
import assert from "node:assert/strict";
import { replayColo } from "../lab/recording/colo_replay.ts";
import { KemariProcess } from "../lab/program/kemari_process.ts";
import { streamInfo } from "../lab/recording/streams.ts";
import { vmStateOf, vmStatesOf } from "../lab/vms/vm_state.ts";

const RECORDING = "colo-11.1-dirty";
const CHECKPOINTS = 5;

/** Runs the demonstration. @throws {AssertionError} if the secondary's state differs. */
export async function demonstrate(narrate: (line: string) => void): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-demonstration-" });
  try {
    const control = `${folder}/control`;
    await using recv = new KemariProcess(["recv", `unix:${folder}/link`, "--control", control]);
    await recv.listening();
    await using send = new KemariProcess(
      ["send", `unix:${folder}/link`, "--commit", "sync"],
      { stdin: "piped" },
    );
    narrate(`recorded: ${streamInfo(RECORDING).about} (QEMU ${streamInfo(RECORDING).qemu})`);
    const sent = await replayColo(RECORDING, send, CHECKPOINTS);
    narrate(`sent the first pass and ${CHECKPOINTS} checkpoints, ${sent.length} bytes`);
    send.signal("SIGKILL");
    narrate("kill -9: kemari send");
    const committed = Number((await recv.waitFor(/keeping transaction (\d+)/))[1]);
    await using failover = new KemariProcess(["failover", control]);
    assert.equal((await failover.ended()).code, 0);
    const { stdout } = await recv.ended();
    const states = vmStatesOf(sent);
    assert.equal(committed, states.length);
    const state = states[committed - 1];
    assert.deepEqual(vmStateOf(stdout), state);
    narrate(
      `held: the activated stream (${stdout.length} bytes) is the VM as of transaction ` +
        `${committed}: RAM ${state.ram.slice(0, 16)}…, device state ${state.device.slice(0, 16)}…`,
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
