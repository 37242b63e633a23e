import assert from "node:assert/strict";
import { TransportError } from "../../errors.ts";
import { GuestConsole, nowMs } from "./guest_console.ts";

const text = new TextEncoder();

Deno.test("GuestConsole makes lines of any pieces and stamps them", () => {
  const console = new GuestConsole("test");
  const startMs = nowMs();
  for (const byte of text.encode("count 1\r\ncount 2\r\ncou")) {
    console.receive(new Uint8Array([byte]));
  }
  assert.deepEqual(console.lines.map((line) => line.text), ["count 1", "count 2"]);
  assert.ok(console.lines[0].atMs >= startMs && console.lines[1].atMs <= nowMs());
});

Deno.test("GuestConsole.waitFor finds lines that were there and lines that come", async () => {
  const console = new GuestConsole("test");
  console.receive(text.encode("one\n"));
  assert.equal((await console.waitFor(/one/)).text, "one");
  const later = console.waitFor(/two/, { from: 1 });
  console.receive(text.encode("x\ntwo\n"));
  assert.equal((await later).text, "two");
});

Deno.test("GuestConsole.waitFor says what it saw when time is up or the guest ends", async () => {
  const console = new GuestConsole("test");
  console.receive(text.encode("kernel panic\n"));
  await assert.rejects(
    console.waitFor(/ready/, { timeoutMs: 10 }),
    (error) => error instanceof TransportError && error.message.includes("kernel panic"),
  );
  const waiting = console.waitFor(/ready/);
  console.end();
  await assert.rejects(waiting, TransportError);
});

Deno.test("GuestConsole.follow gives every line and ends with the guest", async () => {
  const console = new GuestConsole("test");
  console.receive(text.encode("a\nb\n"));
  const seen: string[] = [];
  const reading = (async () => {
    for await (const line of console.follow(1)) seen.push(line.text);
  })();
  await Promise.resolve();
  console.receive(text.encode("c\n"));
  console.end();
  await reading;
  assert.deepEqual(seen, ["b", "c"]);
});
