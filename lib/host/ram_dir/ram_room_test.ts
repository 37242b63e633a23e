import assert from "node:assert/strict";
import { freeMemoryBytes, judgeRoom, type Room } from "./ram_room.ts";
import type { RamReserve } from "../../control/receiver_status.ts";

const GIB = 2 ** 30;
const ROOM: Room = {
  wantedBytes: 4 * GIB,
  freeBytes: 5 * GIB,
  kind: "memory",
  memoryBytes: 6 * GIB,
};

const TABLE: readonly (readonly [string, Partial<Room>, RamReserve, string])[] = [
  ["a tmpfs with room", {}, "full", "enough"],
  ["it is just enough", { freeBytes: 4 * GIB, memoryBytes: 4 * GIB }, "full", "enough"],
  [
    "a tmpfs that is too small",
    { freeBytes: 3 * GIB },
    "full",
    "refused: the guest's RAM takes up to 4.0 GiB, and 3.0 GiB are free",
  ],
  [
    "a tmpfs that is larger than the host's memory, or than its control group's",
    { memoryBytes: GIB },
    "full",
    "refused: the guest's RAM takes up to 4.0 GiB of memory, and of that 1.0 GiB are free, swap included",
  ],
  ["a disk does not take memory", { kind: "disk", memoryBytes: GIB }, "full", "enough"],
  ["whoever overcommits knowingly", { freeBytes: GIB, memoryBytes: GIB }, "none", "enough"],
  [
    "btrfs, zfs",
    { kind: "copying" },
    "full",
    "unsure: this file system writes each page to a new place: if it fills, a VM that has taken over " +
    "dies, whatever was reserved",
  ],
  ["the same, knowingly", { kind: "copying" }, "none", "enough"],
  [
    "hugetlbfs",
    { kind: "huge" },
    "none",
    "refused: hugetlbfs cannot be written page by page: use a tmpfs",
  ],
];

for (const [what, room, reserve, wanted] of TABLE) {
  Deno.test(`room for a guest's RAM: ${what}, reserve ${reserve}`, () => {
    const verdict = judgeRoom({ ...ROOM, ...room }, reserve);
    const said = "why" in verdict ? `${verdict.kind}: ${verdict.why}` : verdict.kind;
    assert.equal(said, wanted);
  });
}

Deno.test("this host's memory is some, and not more than it has", () => {
  const { total, swapTotal } = Deno.systemMemoryInfo();
  const free = freeMemoryBytes();
  assert.ok(free > 0 && free <= total + swapTotal, `${free}`);
  assert.ok(freeMemoryBytes({ swap: false }) <= total);
});
