import assert from "node:assert/strict";
import type { TxnSender } from "../txn/sender.ts";
import { QemuDialogue } from "./qemu_dialogue.ts";

/** A dialogue with a QEMU in COLO, and what it has been told since the last look. */
function inColo(inFlight: { bytes: number }[] = []) {
  const options = { commit: "async", stream: "colo", maxInFlightBytes: 100 } as const;
  const dialogue = new QemuDialogue(options, { inFlight } as unknown as TxnSender, () => 0);
  const heard = () => dialogue.takeReplies().map((reply) => reply[3]);
  dialogue.fullSent(1);
  dialogue.acked(1);
  assert.deepEqual(heard(), [CHECKPOINT_READY]);
  return { dialogue, heard };
}

const CHECKPOINT_READY = 0;
const CHECKPOINT_REPLY = 2;
const VMSTATE_LOADED = 6;

Deno.test("a VM's stop for its own checkpoint is no pause, whenever it is told of", () => {
  const { dialogue, heard } = inColo();
  dialogue.vmResumed();
  for (const late of [false, true]) {
    dialogue.request();
    assert.deepEqual(heard(), [CHECKPOINT_REPLY]);
    if (!late) dialogue.vmStopped();
    dialogue.stopped();
    dialogue.loaded();
    assert.deepEqual(heard(), [VMSTATE_LOADED]);
    if (late) dialogue.vmStopped();
    assert.equal(dialogue.isVmPaused, false);
    dialogue.vmResumed();
  }
});

Deno.test("a paused VM's checkpoint waits until it runs", () => {
  const { dialogue, heard } = inColo();
  dialogue.vmResumed();
  dialogue.vmStopped();
  assert.equal(dialogue.isVmPaused, true);
  dialogue.request();
  dialogue.acked(7);
  assert.deepEqual(heard(), []);
  dialogue.vmResumed();
  assert.equal(dialogue.isVmPaused, false);
  assert.deepEqual(heard(), [CHECKPOINT_REPLY]);
});

Deno.test("a VM that runs again still waits for room", () => {
  const inFlight = [{ bytes: 200 }];
  const { dialogue, heard } = inColo(inFlight);
  dialogue.vmResumed();
  dialogue.vmStopped();
  dialogue.request();
  dialogue.vmResumed();
  assert.deepEqual(heard(), []);
  inFlight.pop();
  dialogue.acked(7);
  assert.deepEqual(heard(), [CHECKPOINT_REPLY]);
});

Deno.test("a VM that stands still for its full state is not paused", () => {
  const options = { commit: "async", stream: "colo", maxInFlightBytes: 100 } as const;
  const txn = { inFlight: [] } as unknown as TxnSender;
  const dialogue = new QemuDialogue(options, txn, () => 0);
  dialogue.vmStopped();
  dialogue.vmResumed();
  dialogue.vmStopped();
  assert.equal(dialogue.isVmPaused, false);
});
