import assert from "node:assert/strict";
import type { NextTry, PrimaryEnd } from "../../decisions/primary_end.ts";
import { Retries, type Say } from "./retries.ts";
import { never } from "../system/never.ts";

/** One that notes what was said, and for how long was waited. */
function noted() {
  const notes: string[] = [];
  const fill = (text: string, values: Record<string, unknown>) =>
    notes.push(text.replaceAll(/\{(\w+)\}/g, (_, name) => String(values[name])));
  const say = { info: fill, warn: fill } as unknown as Say;
  const sleep = (ms: number) => {
    notes.push(`${ms} ms`);
    return Promise.resolve();
  };
  const retries = new Retries("there:4000", say);
  const fail = (next: Exclude<NextTry, "never">, end: PrimaryEnd, reason: string) =>
    retries.wait(next, end, new Error(reason), { sleep }, never);
  return { notes, retries, fail };
}

Deno.test("a secondary that is full is told of once, asked ever less often, and told of when it is over", async () => {
  const { notes, retries, fail } = noted();
  for (const used of ["80", "81", "82"]) {
    retries.connected("kemari");
    await fail("again-later", "storage", `no room: ${used} %`);
  }
  retries.connected("kemari");
  retries.over();
  retries.connected("kemari");
  assert.deepEqual(notes, [
    "connected to there:4000: kemari",
    "no room: 80 %; the VM is unprotected, trying again",
    ...["1000 ms", "2000 ms", "4000 ms"],
    "there:4000 takes the VM's state again, after 3 tries in 0 s",
    "connected to there:4000: kemari",
  ]);
});

Deno.test("a secondary that is not there is asked each second, and each reason is told once", async () => {
  const { notes, fail } = noted();
  await fail("again", "secondary-lost", "it is silent");
  for (let i = 0; i < 3; i++) await fail("again-later", "secondary-lost", "nobody listens");
  await fail("again-later", "busy", "another sender");
  assert.deepEqual(notes, [
    "secondary lost: it is silent; the VM goes on unprotected, trying again",
    "nobody listens; the VM is unprotected, trying again",
    ...["1000 ms", "1000 ms", "1000 ms"],
    "another sender; the VM is unprotected, trying again",
    "1000 ms",
  ]);
});
