import assert from "node:assert/strict";
import { TransportError } from "../errors.ts";
import { GuestConsole } from "../lab/guest/guest_console.ts";
import { crashOf, stuck } from "./rehearse_fault.ts";

function vmThatSaid(text: string) {
  const console = new GuestConsole("test");
  console.receive(new TextEncoder().encode(text));
  return { console };
}

Deno.test("a guest's crash is what it says in its last moments, or when it boots again", () => {
  const booted = vmThatSaid("KEMARI GUEST READY\r\ncount 1\r\n");
  const panic = "[   12.3] Kernel panic - not syncing: Attempted to kill init!";
  assert.equal(crashOf({}), undefined);
  assert.equal(crashOf({ primary: booted, secondary: vmThatSaid("count 2\r\n") }), undefined);
  assert.equal(crashOf({ primary: booted, secondary: vmThatSaid(`${panic}\r\n`) }), panic);
  assert.equal(crashOf({ primary: vmThatSaid(`${panic}\r\n`) }), panic);
  assert.equal(crashOf({ primary: booted, secondary: booted }), "KEMARI GUEST READY");
});

Deno.test("a run that got stuck says so, and that its guest crashed, if it did", () => {
  const plan = { fault: "primary", devices: "virtio", diskMode: "shared", commit: "sync" } as const;
  const error = new TransportError("drill", "read", "nothing came");
  const failed = (crash?: string) =>
    stuck(1, plan, error, crash).checks.map(({ name, held, detail }) => [name, held, detail]);
  const END = ["the run came to its end", false, "drill: nothing came"];
  assert.deepEqual(failed(), [END]);
  const CRASH = ["the guest did not crash", false, "it said: BUG: bad page"];
  assert.deepEqual(failed("BUG: bad page"), [END, CRASH]);
});
