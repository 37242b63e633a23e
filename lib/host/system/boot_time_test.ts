import assert from "node:assert/strict";
import { bootTimeMs } from "./boot_time.ts";
import { delay } from "./delay.ts";

Deno.test("the time since the machine's start is the system's, and passes as any other", async () => {
  const uptimeMs = () => 1000 * Number(Deno.readTextFileSync("/proc/uptime").split(" ")[0]);
  const before = uptimeMs();
  const time = bootTimeMs();
  // The file has hundredths of a second.
  assert.ok(before - 10 <= time && time <= uptimeMs() + 10, `${before} ${time}`);
  await delay(5);
  assert.ok(bootTimeMs() > time);
});
