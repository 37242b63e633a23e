/** What a guest said last before it was shut down: a client that saw it finds it on the disk. */
import assert from "node:assert/strict";
import { TappedPair } from "../../lab/testing/tapped_pair.ts";

const decoder = new TextDecoder();

for (const mode of ["shared", "replicated"] as const) {
  for (const how of ["guest poweroff", "quit"] as const) {
    Deno.test(`e2e: nothing that a client saw is missing from the disk of a VM that was shut down: ${how}, ${mode}`, async () => {
      // Rarely: much is held when the end comes.
      await using pair = await TappedPair.make(mode, "--sync-interval", "1s");
      await pair.syncs(2);
      await pair.connect();
      await pair.moreAnswers(30);
      const end = how === "quit" ? "sync" : "sync; echo o > /proc/sysrq-trigger";
      pair.primary.run(end, { timeoutMs: 30_000 }).catch(() => {});
      if (how === "quit") Deno.kill(pair.primary.pid, "SIGTERM");
      const { code, stderr } = await pair.protect.ended(60_000);
      assert.equal(code, 0, stderr);
      assert.match(stderr, /the secondary knows that the VM was shut down/);
      await pair.recv.waitFor(/the VM was shut down at the primary/);
      const last = pair.acked.at(-1)!.acked;
      // The journal has what the file system's own blocks lack.
      const image = pair.image("primary");
      await new Deno.Command("e2fsck", { args: ["-fy", image] }).output();
      const { stdout } = await new Deno.Command("debugfs", { args: ["-R", "cat /log", image] })
        .output();
      const numbers = decoder.decode(stdout).trim().split("\n").map(Number);
      assert.ok(numbers.length >= last, `${numbers.length} of ${last} numbers are on the disk`);
      assert.deepEqual(
        numbers.slice(0, last),
        Array.from({ length: last }, (_, i) => i + 1),
      );
    });
  }
}
