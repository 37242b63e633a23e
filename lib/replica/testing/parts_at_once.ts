import { StateError } from "../../errors.ts";
import type { DigestPart, Waits } from "../events/disk_digest.ts";

/** All parts of an answer from a disk whose calls are done at once. */
export function* partsAtOnce(answer: Generator<DigestPart | Waits>): Generator<DigestPart> {
  for (const part of answer) {
    if (typeof part !== "function") {
      yield part;
      continue;
    }
    let isThere = false;
    part(() => isThere = true);
    if (!isThere) throw new StateError("a disk that has to be waited for");
  }
}
