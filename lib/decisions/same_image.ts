/**
 * Whether both ends of a pair have one and the same image for a disk: {@link judgeImages}.
 *
 * In mode *replicated* that destroys the disk: what the guest writes at the primary is written by the
 * secondary once more, later, and a takeover finds a disk that is ahead of its memory. In mode *shared*
 * it is what is wanted.
 *
 * **Why two hosts cannot be taken for one by accident.** Where an image is, is told as a text: what it
 * is a part of, down to what stores it. That is either a file, written {@link SEEN}, or hardware with
 * an identity that its maker guarantees to be the only one, or something weaker. `@` is only written
 * by a secondary that has found the primary's mark, 128 random bits of this session, at its own image:
 * it can only have come there through the image's own storage. Weaker things (a serial number that
 * somebody has typed, the UUID of a volume on a disk that may have been cloned) raise a warning and no
 * more.
 */

/** A file that has the session's mark; at the primary, which has put it there, any file. */
export const SEEN = "@";
/** A file that has not, or a device of which nothing is known. */
export const UNSEEN = "?";
/** In front of what may be the same on two hosts that have nothing in common. */
export const WEAK = "weak:";
/** Between a part and what it is a part of. */
export const OF = " of ";

type ImageJudgement =
  /** Both are the same, or one is a part of the other. */
  | "same"
  /** They may be. */
  | "suspect"
  | "apart";

/** Compares where the primary's image is with where the secondary's is, see above. */
export function judgeImages(primary: string, secondary: string): ImageJudgement {
  if (primary.includes(UNSEEN) || secondary.includes(UNSEEN)) return "apart";
  const overlaps = primary === secondary || primary.endsWith(OF + secondary) ||
    secondary.endsWith(OF + primary);
  if (!overlaps) return "apart";
  return primary.includes(WEAK) ? "suspect" : "same";
}

/** What a secondary does about a disk. */
export type ImageVerdict = "accept" | "refuse" | "warn-same" | "warn-apart";

/** Decides what a secondary does about one disk. */
export function mayUseImage(
  mode: "replicated" | "shared",
  primary: string,
  secondary: string,
): ImageVerdict {
  const judgement = judgeImages(primary, secondary);
  if (mode === "replicated") {
    return judgement === "same" ? "refuse" : judgement === "suspect" ? "warn-same" : "accept";
  }
  // A file that bears no mark may be the same one, over a file system that shows less.
  const isFile = primary === SEEN && secondary === UNSEEN;
  return isFile ? "warn-apart" : "accept";
}
