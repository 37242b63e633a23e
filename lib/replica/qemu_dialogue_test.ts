import assert from "node:assert/strict";
import type { TxnSender } from "../txn/sender.ts";
import type { PrimaryTaps } from "./primary_options.ts";
import { QemuDialogue } from "./qemu_dialogue.ts";

/** A dialogue with a QEMU in COLO, and what it has been told since the last look. */
function inColo(inFlight: { bytes: number }[] = [], taps?: PrimaryTaps) {
  const options = { commit: "async", stream: "colo", maxInFlightBytes: 100, taps } as const;
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

/** As {@link inColo}, with NICs; `isTaken` says whether QEMU has taken what they were given. */
function withInputs(isTaken: () => boolean) {
  const told: string[] = [];
  const taps = {
    checkpointRequested: () => {},
    vmStops: () => void told.push("stops"),
    giveInputs: () => void told.push("give"),
    holdInputs: () => {
      told.push("hold");
      return isTaken();
    },
  } as unknown as PrimaryTaps;
  return { told, ...inColo([], taps) };
}

Deno.test("QEMU has leave to stop the VM in the same turn, where it has taken everything", () => {
  const { dialogue, heard, told } = withInputs(() => true);
  dialogue.vmResumed();
  dialogue.request();
  assert.deepEqual(heard(), [CHECKPOINT_REPLY]);
  assert.deepEqual(told, ["hold", "stops"]);
  assert.equal(dialogue.inputsTaken(), false);
});

Deno.test("QEMU has leave to stop the VM once it has taken what was sent to the guest", () => {
  const { dialogue, heard, told } = withInputs(() => false);
  dialogue.vmResumed();
  dialogue.request();
  // The last checkpoint's RESUME may be heard behind the next one's request.
  dialogue.vmResumed();
  dialogue.acked(5);
  assert.deepEqual(heard(), []);
  assert.equal(dialogue.inCheckpoint, true);
  assert.equal(dialogue.inputsTaken(), true);
  assert.deepEqual(heard(), [CHECKPOINT_REPLY]);
  assert.deepEqual(told, ["hold", "stops"]);
  assert.equal(dialogue.inputsTaken(), false);
  assert.equal(dialogue.takeLoaded(), false);
  dialogue.loaded();
  assert.equal(dialogue.takeLoaded(), true);
  assert.equal(dialogue.takeLoaded(), false);
});

Deno.test("a VM that is paused while QEMU takes what was sent gets it, and is waited for", () => {
  const { dialogue, heard, told } = withInputs(() => false);
  dialogue.vmResumed();
  dialogue.request();
  dialogue.vmStopped();
  assert.equal(dialogue.isVmPaused, true);
  dialogue.inputsTaken();
  assert.deepEqual(heard(), []);
  assert.deepEqual(told, ["hold", "give"]);
  dialogue.vmResumed();
  dialogue.inputsTaken();
  assert.deepEqual(heard(), [CHECKPOINT_REPLY]);
  assert.deepEqual(told, ["hold", "give", "hold", "stops"]);
});

Deno.test("a QEMU whose session is about to end gets no leave to stop its VM, whatever comes", () => {
  const inFlight = [{ bytes: 200 }];
  const { dialogue, heard } = inColo(inFlight);
  dialogue.vmResumed();
  dialogue.request();
  dialogue.hold();
  inFlight.pop();
  dialogue.acked(7);
  dialogue.vmResumed();
  dialogue.request();
  assert.deepEqual(heard(), []);
});
