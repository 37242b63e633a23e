/** Checks and claims an image before kemari serves it. */
import { TransportError } from "../../errors.ts";
import { FORMAT_HEAD_BYTES, FORMAT_TAIL_BYTES, probeImageFormat } from "../../qemu/image_format.ts";
import { inUse, lockImage, pause, refuseLooped } from "./lock_image.ts";
import { cString, errno, libc } from "../system/libc.ts";
import { ERRNO, O_CLOEXEC, O_EXCL, O_RDWR } from "../system/linux.ts";

/**
 * How often, and after how long, to try a device again that another process may only be examining.
 */
const BUSY_TRIES = 20;
const BUSY_TRY_MS = 10;

/** How an image is to be used. */
export interface ImageUse {
  /** Whether the other end of the pair may have it open too. */
  readonly isShared?: boolean;
  /** `raw`: whatever the image looks like. Without this, an image in another format is refused. */
  readonly format?: "raw";
}

const CLAIMED = "the device or a part of it is mounted, or part of another device";

/**
 * Flags to open an image with. A mounted file system, LVM, RAID or multipath claims a device
 * exclusively (O_EXCL), also through a partition or the whole disk, and takes no lock: only a claim
 * of the same kind detects that, and prevents it later.
 */
export function claimFlags(isBlockDevice: boolean, use: ImageUse): number {
  return isBlockDevice && !use.isShared ? O_EXCL : 0;
}

/** The error for a refused claim, if that is why the image could not be opened. */
export function claimRefusal(path: string, code: number): TransportError | undefined {
  return code === ERRNO.EBUSY ? inUse(path, CLAIMED) : undefined;
}

/**
 * Makes sure that an open image is raw and that no other process writes it, and locks it until its
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
  // An image that is not shared was opened exclusively.
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
    `the image is in format ${format}: served as a raw image it would be destroyed`,
    {
      party: "disk",
      hint:
        "convert it with `qemu-img convert -O raw`; where this is the guest's own data on a raw " +
        "disk, write --disk NAME=PATH,unix:SOCK,format=raw",
    },
  );
}

/**
 * Reads a part of the image. If it cannot be read, nothing is recognized: serving the disk will
 * report the error.
 */
function readAt(fd: number, offset: number, lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  const count = Number(libc().pread(fd, bytes, BigInt(lengthBytes), BigInt(offset)));
  return bytes.subarray(0, Math.max(0, count));
}

/** Whether a device is claimed otherwise, for example mounted: see {@link claimFlags}. */
function refuseBusyDevice(path: string): void {
  for (let tries = BUSY_TRIES;; tries--) {
    const fd = libc().open(cString(path), O_RDWR | O_EXCL | O_CLOEXEC, 0);
    if (fd >= 0) return void libc().close(fd);
    // For any other reason the image could not have been opened before.
    if (errno() !== ERRNO.EBUSY) return;
    if (tries === 0) throw inUse(path, CLAIMED);
    pause(BUSY_TRY_MS);
  }
}
