import { netLabMissing } from "../lib/lab/network/net_lab.ts";
import { leavesNothing } from "../lib/lab/testing/leaves_nothing.ts";

const missing = await netLabMissing();
if (missing !== undefined) console.error(`SKIP bench net: ${missing}`);

const SETTINGS = ["--quick", "--seconds", "1", "--progress", "always"];

// Some seconds into either step, the guest of that kind is measured.
for (const [kind, said] of [["unprotected", /net: 1 of/], ["protected", /net: 2 of/]] as const) {
  Deno.test({
    name: `e2e: bench net that is interrupted with its guest ${kind} leaves nothing behind`,
    ignore: missing !== undefined,
    fn: () => leavesNothing(["bench", "net", ...SETTINGS], said),
  });
}
