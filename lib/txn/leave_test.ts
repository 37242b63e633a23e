import assert from "node:assert/strict";
import { WireError } from "../errors.ts";
import { decodeLeave, encodeLeave } from "./leave.ts";
import { MAX_LEAVE_BYTES } from "./wire.ts";

Deno.test("LEAVE survives the wire; an older sender's is empty, and says that the VM goes on", () => {
  for (const reason of ["goes-on", "vm-ended"] as const) {
    const leave = { reason, text: "guest-shutdown: größer" };
    assert.deepEqual(decodeLeave(encodeLeave(leave), 0), leave);
  }
  assert.deepEqual(decodeLeave(new Uint8Array(0), 0), { reason: "goes-on", text: "" });
  const long = encodeLeave({ reason: "vm-ended", text: "x".repeat(5000) });
  assert.equal(long.length, MAX_LEAVE_BYTES);
});

Deno.test("a LEAVE for a reason that is not known is refused: nothing is guessed of a VM", () => {
  for (const code of [2, 255]) {
    assert.throws(() => decodeLeave(Uint8Array.of(code), 7), (error) => {
      assert.ok(error instanceof WireError);
      assert.deepEqual([error.fault, error.offset, error.party], ["bad-value", 7, "peer"]);
      return true;
    });
  }
});
