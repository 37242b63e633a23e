import assert from "node:assert/strict";
import type { InFlight } from "../../txn/sender_config.ts";
import type { PrimaryTaps } from "./primary_config.ts";
import { QemuDialogue } from "./qemu_dialogue.ts";

/** A dialogue with a QEMU in COLO, and what it has been told since the last look. */
function inColo(inFlight: { bytes: number }[] = [], taps?: PrimaryTaps) {
  const options = { commit: "async", stream: "colo", maxInFlightBytes: 100, taps } as const;
  const dialogue = new QemuDialogue(options, { inFlight: inFlight as InFlight[] });
  const heard = () => dialogue.takeReplies().map((reply) => reply[3]);
  dialogue.fullSent(1);
  dialogue.acked(1, 0);
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
    dialogue.stopped(0);
    dialogue.loaded(0);
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
  dialogue.acked(7, 0);
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
  dialogue.acked(7, 0);
  assert.deepEqual(heard(), [CHECKPOINT_REPLY]);
});

Deno.test("a VM that stands still for its full state is not paused", () => {
  const options = { commit: "async", stream: "colo", maxInFlightBytes: 100 } as const;
  const dialogue = new QemuDialogue(options, { inFlight: [] });
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
  dialogue.acked(5, 0);
  assert.deepEqual(heard(), []);
  assert.equal(dialogue.inCheckpoint, true);
  assert.equal(dialogue.inputsTaken(), true);
  assert.deepEqual(heard(), [CHECKPOINT_REPLY]);
  assert.deepEqual(told, ["hold", "stops"]);
  assert.equal(dialogue.inputsTaken(), false);
  dialogue.repliesGiven();
  dialogue.stopped(0);
  dialogue.received(0);
  dialogue.loaded(0);
  assert.deepEqual(told.splice(0), ["hold", "stops"], "the guest is given nothing before QEMU");
  dialogue.repliesGiven();
  dialogue.repliesGiven();
  assert.deepEqual(told, ["give"]);
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
  dialogue.acked(7, 0);
  dialogue.vmResumed();
  dialogue.request();
  assert.deepEqual(heard(), []);
});

Deno.test("a RESUME that is heard late, in the next checkpoint, is not about that one", () => {
  const { dialogue, heard } = inColo();
  dialogue.vmResumed();
  for (const at of ["stopping", "reading", "read"]) {
    dialogue.request();
    assert.deepEqual(heard(), [CHECKPOINT_REPLY]);
    if (at === "stopping") dialogue.vmResumed();
    dialogue.stopped(0);
    if (at === "reading") dialogue.vmResumed();
    dialogue.received(0);
    if (at === "read") dialogue.vmResumed();
    assert.equal(dialogue.inCheckpoint, true, at);
    dialogue.loaded(0);
    assert.equal(dialogue.inCheckpoint, true);
    dialogue.vmResumed();
    assert.equal(dialogue.inCheckpoint, false);
    heard();
  }
});
