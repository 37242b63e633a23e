/**
 * Whether both ends of a pair have the same image for a disk: {@link judgeImages}.
 *
 * In mode *replicated* that destroys the disk: the secondary makes the guest's writes at the
 * primary once more, later, and a takeover finds a disk that is ahead of the memory. In mode
 * *shared* the same image is required.
 *
 * **Why images of two hosts are not taken for the same by accident.** The place of an image is
 * written as a text: the image, and what it is a part of, down to the storage. The storage is
 * either a file, written {@link SEEN}, or hardware with an identity that its maker guarantees to be
 * unique, or something weaker. A secondary writes `@` only if it has found the primary's mark, 128
 * random bits of this session, on its own image: the mark can only have come there through the
 * image's storage. Weaker identities (a serial number that somebody has typed, the UUID of a volume
 * on a disk that may have been cloned) only raise a warning.
 */

/** A file with the session's mark; at the primary, which sets the mark, any file. */
export const SEEN = "@";
/** A file without the mark, or a device of which nothing is known. */
export const UNSEEN = "?";
/** The prefix of identities that may be equal on unrelated hosts. */
export const WEAK = "weak:";
/** Between a part and what it is a part of. */
export const OF = " of ";

type ImageJudgement =
  /** Both are the same, or one is a part of the other. */
  | "same"
  /** They may be the same. */
  | "suspect"
  | "apart";

/** Compares the places of the primary's and the secondary's image, see above. */
export function judgeImages(primary: string, secondary: string): ImageJudgement {
  if (primary.includes(UNSEEN) || secondary.includes(UNSEEN)) return "apart";
  const overlaps = primary === secondary || primary.endsWith(OF + secondary) ||
    secondary.endsWith(OF + primary);
  if (!overlaps) return "apart";
  return primary.includes(WEAK) ? "suspect" : "same";
}

/** What a secondary does about a disk. */
export type ImageVerdict = "accept" | "refuse" | "warn-same" | "warn-apart";

/** Decides what a secondary does about a disk. */
export function mayUseImage(
  mode: "replicated" | "shared",
  primary: string,
  secondary: string,
): ImageVerdict {
  const judgement = judgeImages(primary, secondary);
  if (mode === "replicated") {
    return judgement === "same" ? "refuse" : judgement === "suspect" ? "warn-same" : "accept";
  }
  // A file without the mark may be the same one, on a file system that does not show the mark.
  const isFile = primary === SEEN && secondary === UNSEEN;
  return isFile ? "warn-apart" : "accept";
}
