import assert from "node:assert/strict";
import type { MarkedDisk } from "../image/image_marks.ts";
import { CopyOwner, type NoteCalls } from "./copy_owner.ts";

const DISKS = [{ path: "/disk", mode: "replicated" }] as unknown as MarkedDisk[];

/** Storage that writes what it is told to when that is let go. */
function slowStorage() {
  const done: string[] = [];
  const waiting: (() => void)[] = [];
  const later = (what: string) =>
    new Promise<number>((resolve) =>
      waiting.push(() => {
        done.push(what);
        resolve(0);
      })
    );
  const calls: NoteCalls = {
    set: (_, value) => later(JSON.parse(new TextDecoder().decode(value)).name),
    remove: () => later("removed"),
  };
  return { done, waiting, calls };
}

Deno.test("whose a copy is is written in the order in which it was asked for", async () => {
  const { done, waiting, calls } = slowStorage();
  const copies = new CopyOwner(DISKS, calls);
  const all = [copies.note({ name: "alpha" }), copies.clear(), copies.note({ name: "beta" })];
  // Whichever of those that the storage has been told of is last is done first.
  while (done.length < all.length) {
    waiting.pop()?.();
    await new Promise((resolve) => setTimeout(resolve));
  }
  await Promise.all(all);
  assert.deepEqual(done, ["alpha", "removed", "beta"]);
});

Deno.test("an end waits for what is being written, and no longer than it may", async () => {
  const { done, waiting, calls } = slowStorage();
  const copies = new CopyOwner(DISKS, calls);
  void copies.note({ name: "alpha" });
  await copies.settle(1);
  assert.deepEqual(done, [], "the storage hangs");
  setTimeout(() => waiting.pop()!(), 10);
  await copies.settle(60_000);
  assert.deepEqual(done, ["alpha"]);
});
