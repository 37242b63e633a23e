import { UsageError } from "../../errors.ts";
import type { DiskMode } from "../../replica/events/tap_events.ts";
import { parseAddress } from "../system/address.ts";
import type { ImageUse } from "../image/claim_image.ts";
import type { UnixAddress } from "../net/net_tap_address.ts";

/** One `--disk NAME=PATH,unix:SOCK[,mode=replicated|shared][,format=raw]`. */
export interface DiskTapAddress {
  /** The disk's name, the same at both ends. */
  readonly name: string;
  /** A raw image or a block device. */
  readonly path: string;
  /** The socket on which QEMU finds the disk, as an NBD export of that name, or without a name. */
  readonly socket: UnixAddress;
  readonly mode: DiskMode;
  /** Explicitly raw: an image that looks like another format is served as raw all the same. */
  readonly format?: "raw";
}

/** How to open a disk's image. */
export function imageUseOf({ mode, format }: DiskTapAddress): ImageUse {
  return { isShared: mode === "shared", format };
}

const SHAPE = "write NAME=PATH,unix:SOCK[,mode=replicated|shared][,format=raw], " +
  "such as disk0=/var/lib/vm1.img,unix:/run/vm1.nbd";

/**
 * Reads `NAME=PATH,unix:SOCK[,mode=MODE][,format=raw]`.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(parseDiskTap("d=/img,unix:/s").mode, "replicated");
 * assert.equal(parseDiskTap("d=/img,unix:/s,mode=shared").path, "/img");
 * ```
 *
 * @throws {UsageError}
 */
export function parseDiskTap(text: string): DiskTapAddress {
  const refuse = (what: string): never => {
    throw new UsageError(`--disk "${text}": ${what}`, { hint: SHAPE });
  };
  const parts = /^([A-Za-z0-9_.-]{1,32})=([^,]+),(unix:[^,]+)((?:,[a-z]+=[a-z0-9]+)*)$/.exec(text);
  if (parts === null) return refuse("it does not have this form");
  const [, name, path, socket, rest] = parts;
  const said = new Map<string, string>();
  for (const option of rest.split(",").slice(1)) {
    const [key, value] = option.split("=");
    if (said.has(key)) return refuse(`${key} is given twice`);
    if (key !== "mode" && key !== "format") return refuse(`there is no option ${key}`);
    said.set(key, value);
  }
  const mode = said.get("mode") ?? "replicated";
  const format = said.get("format");
  if (mode !== "replicated" && mode !== "shared") return refuse(`there is no mode ${mode}`);
  if (format !== undefined && format !== "raw") {
    return refuse(`format ${format} cannot be served, only raw`);
  }
  return {
    name,
    path,
    socket: parseAddress(socket) as UnixAddress,
    mode,
    ...(format === undefined ? {} : { format }),
  };
}

/** @throws {UsageError} if two disks have the same name, image or socket. */
export function checkDiskTaps(disks: readonly DiskTapAddress[]): void {
  const seen = new Set<string>();
  for (const { name, path, socket } of disks) {
    for (const claim of [`name ${name}`, `image ${path}`, socket.text]) {
      if (seen.has(claim)) throw new UsageError(`--disk: ${claim} is used twice`, { hint: SHAPE });
      seen.add(claim);
    }
  }
}
