/** What has to be true of an image before kemari serves it. */
import { TransportError } from "../../errors.ts";
import { FORMAT_HEAD_BYTES, FORMAT_TAIL_BYTES, probeImageFormat } from "../../qemu/image_format.ts";
import { inUse, lockImage, pause, refuseLooped } from "./lock_image.ts";
import { cString, errno, libc } from "../system/libc.ts";
import { ERRNO, O_CLOEXEC, O_EXCL, O_RDWR } from "../system/linux.ts";

/** How often, and after how long, a device is tried again that may just be looked at by another. */
const BUSY_TRIES = 20;
const BUSY_TRY_MS = 10;

/** How an image is to be used. */
export interface ImageUse {
  /** Whether the other end of the pair may have it open too. */
  readonly isShared?: boolean;
  /** `raw`: whatever it looks like. Without it, an image in a format that is not raw is refused. */
  readonly format?: "raw";
}

const CLAIMED = "it, or a part of it, is mounted, or part of another device";

/**
 * Flags to open an image with. A mounted file system, LVM, RAID or multipath takes a device for
 * itself, also by a part of it or by what it is a part of, and asks for no lock: only a claim of the
 * same kind shows it, and keeps it away later.
 */
export function claimFlags(isBlockDevice: boolean, use: ImageUse): number {
  return isBlockDevice && !use.isShared ? O_EXCL : 0;
}

/** The error for a claim that was refused, if the failure to open the image is that. */
export function claimRefusal(path: string, code: number): TransportError | undefined {
  return code === ERRNO.EBUSY ? inUse(path, CLAIMED) : undefined;
}

/**
 * Makes sure that an open image is raw and that nothing else writes it, and locks it until its
 * descriptor is closed.
 *
 * @param fd Open for reading and writing.
 * @throws {TransportError}
 */
export function claimImage(
  fd: number,
  path: string,
  image: { readonly sizeBytes: number; readonly isBlockDevice: boolean },
  use: ImageUse,
): void {
  lockImage(fd, path, use.isShared ?? false);
  // One that is not shared was opened for ourselves alone.
  if (!image.isBlockDevice) refuseLooped(path);
  else if (use.isShared) refuseBusyDevice(path);
  if (use.format !== "raw") refuseOtherFormats(fd, path, image.sizeBytes);
}

function refuseOtherFormats(fd: number, path: string, sizeBytes: number): void {
  const tailBytes = Math.min(FORMAT_TAIL_BYTES, sizeBytes);
  const format = probeImageFormat(
    readAt(fd, 0, Math.min(FORMAT_HEAD_BYTES, sizeBytes)),
    readAt(fd, sizeBytes - tailBytes, tailBytes),
  );
  if (format === "raw") return;
  throw new TransportError(
    path,
    "read",
    `the image is in format ${format}: served as a raw one it would be destroyed`,
    {
      party: "disk",
      hint:
        "convert it with `qemu-img convert -O raw`; where this is the guest's own data on a raw " +
        "disk, say so: --disk NAME=PATH,unix:SOCK,format=raw",
    },
  );
}

/** What cannot be read is nothing to recognize: whoever serves it will hear of that. */
function readAt(fd: number, offset: number, lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  const count = Number(libc().pread(fd, bytes, BigInt(lengthBytes), BigInt(offset)));
  return bytes.subarray(0, Math.max(0, count));
}

/** Mounted, say: see {@link claimFlags}. */
function refuseBusyDevice(path: string): void {
  for (let tries = BUSY_TRIES;; tries--) {
    const fd = libc().open(cString(path), O_RDWR | O_EXCL | O_CLOEXEC, 0);
    if (fd >= 0) return void libc().close(fd);
    // Another reason would have kept it from being opened before.
    if (errno() !== ERRNO.EBUSY) return;
    if (tries === 0) throw inUse(path, CLAIMED);
    pause(BUSY_TRY_MS);
  }
}
