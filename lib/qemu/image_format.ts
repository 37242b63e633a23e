/**
 * Finds a disk image's format by the marks that QEMU itself looks for.
 *
 * If an image in such a format is served as raw, the guest sees the format's own tables as its
 * disk, and its first write destroys them.
 *
 * @see QEMU block/*.c, the `bdrv_probe` functions
 */

/** How many bytes at an image's beginning are examined; an image may be shorter. */
export const FORMAT_HEAD_BYTES = 4096;
/** How many bytes at an image's end are examined. */
export const FORMAT_TAIL_BYTES = 512;

interface Mark {
  readonly format: string;
  /** Offset in the head, or in the tail. */
  readonly at: number;
  readonly bytes: readonly number[];
  readonly inTail?: true;
}

const text = (characters: string) => [...characters].map((each) => each.charCodeAt(0));

/** A longer mark is before a mark with which it begins. */
const MARKS: readonly Mark[] = [
  { format: "qcow2", at: 0, bytes: [...text("QFI\xfb"), 0, 0, 0, 2] },
  { format: "qcow2", at: 0, bytes: [...text("QFI\xfb"), 0, 0, 0, 3] },
  { format: "qcow", at: 0, bytes: text("QFI\xfb") },
  { format: "qed", at: 0, bytes: text("QED\0") },
  { format: "vmdk", at: 0, bytes: text("KDMV") },
  { format: "vmdk", at: 0, bytes: text("COWD") },
  { format: "vmdk", at: 0, bytes: text("# Disk DescriptorFile") },
  { format: "vdi", at: 0x40, bytes: [0x7f, 0x10, 0xda, 0xbe] },
  { format: "vhdx", at: 0, bytes: text("vhdxfile") },
  { format: "vpc", at: 0, bytes: text("conectix") },
  // A VHD of fixed size has its only mark behind the disk; QEMU takes it for raw.
  { format: "vpc", at: 0, bytes: text("conectix"), inTail: true },
  { format: "dmg", at: 0, bytes: text("koly\0\0\0\x04"), inTail: true },
  { format: "luks", at: 0, bytes: text("LUKS\xba\xbe") },
  { format: "parallels", at: 0, bytes: text("WithoutFreeSpace") },
  { format: "parallels", at: 0, bytes: text("WithouFreSpacExt") },
  { format: "bochs", at: 0, bytes: text("Bochs Virtual HD Image") },
  { format: "cloop", at: 0, bytes: text("#!/bin/sh\n#V2.0 Format\n") },
  // Not formats of QEMU, but formats in which images are stored and sent.
  { format: "xz", at: 0, bytes: [0xfd, ...text("7zXZ"), 0] },
  { format: "zstd", at: 0, bytes: [0x28, 0xb5, 0x2f, 0xfd] },
  { format: "gzip", at: 0, bytes: [0x1f, 0x8b, 8] },
];

/**
 * Recognizes an image's format.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * const head = new Uint8Array([0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3]);
 * assert.equal(probeImageFormat(head, new Uint8Array(0)), "qcow2");
 * assert.equal(probeImageFormat(new Uint8Array(512), new Uint8Array(512)), "raw");
 * ```
 *
 * @param head Up to {@link FORMAT_HEAD_BYTES} from the image's beginning.
 * @param tail Its last {@link FORMAT_TAIL_BYTES}; fewer if it has no more.
 * @returns QEMU's name for the format; `raw` if none is recognized.
 */
export function probeImageFormat(head: Uint8Array, tail: Uint8Array): string {
  const mark = MARKS.find(({ at, bytes, inTail }) => {
    const where = inTail ? tail : head;
    return where.length >= at + bytes.length && bytes.every((byte, i) => where[at + i] === byte);
  });
  return mark?.format ?? "raw";
}
