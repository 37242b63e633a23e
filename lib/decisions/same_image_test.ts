import assert from "node:assert/strict";
import { type ImageVerdict, mayUseImage } from "./same_image.ts";

const WWID = "naa.6001405aabbccdd";
const CASES: [
  name: string,
  primary: string,
  secondary: string,
  replicated: ImageVerdict,
  shared: ImageVerdict,
][] = [
  ["the mark is at the secondary's file", "@", "@", "refuse", "accept"],
  ["it is not", "@", "?", "accept", "warn-apart"],
  ["one LUN", WWID, WWID, "refuse", "accept"],
  ["two LUNs", WWID, "naa.7", "accept", "accept"],
  ["a LUN and a partition of it", WWID, `part 1 2 of ${WWID}`, "refuse", "accept"],
  ["a partition of a LUN, and it", `part 1 2 of ${WWID}`, WWID, "refuse", "accept"],
  ["two partitions of a LUN", `part 1 2 of ${WWID}`, `part 3 2 of ${WWID}`, "accept", "accept"],
  ["a volume of a marked file", "dm LVM-x of @", "dm LVM-x of @", "refuse", "accept"],
  ["two volumes of a marked file", "dm LVM-x of @", "dm LVM-y of @", "accept", "accept"],
  ["a file's part and the file", "part 1 2 of @", "@", "refuse", "accept"],
  ["of another file", "dm LVM-x of @", "dm LVM-x of ?", "accept", "accept"],
  ["a typed serial", "weak:QM0001", "weak:QM0001", "warn-same", "accept"],
  ["other serials", "weak:QM0001", "weak:QM0002", "accept", "accept"],
  ["a cloned volume", "dm LVM-x of weak:1", "dm LVM-x of weak:1", "warn-same", "accept"],
  ["devices of which nothing is known", "?", "?", "accept", "accept"],
  ["a device and a file", WWID, "?", "accept", "accept"],
];

for (const [name, primary, secondary, replicated, shared] of CASES) {
  Deno.test(`one image at both ends or not: ${name}`, () => {
    assert.equal(mayUseImage("replicated", primary, secondary), replicated);
    assert.equal(mayUseImage("shared", primary, secondary), shared);
  });
}
