import { NBD_STATE_ZERO } from "../../nbd/wire.ts";
import type { DigestedDisk } from "../../replica/events/disk_digest.ts";
import type { DiskStore } from "../../replica/events/primary_disk_tap.ts";
import type { BlockBackend } from "../image/block_backend.ts";

/** An image in the form that the pure half of the event-tap needs. */
export function imageStore(image: BlockBackend): DiskStore & DigestedDisk {
  return {
    sizeBytes: image.sizeBytes,
    read: (into, offset, done) => image.read(into, offset, done),
    zeroBytes: (offset, lengthBytes, told) => {
      if (lengthBytes === 0) return told(0);
      image.status(offset, lengthBytes, 1, ([extent], error) => {
        if (error !== undefined) return told(0, error);
        const isZero = (extent.flags & NBD_STATE_ZERO) !== 0;
        told(isZero ? Math.min(lengthBytes, extent.lengthBytes) : 0);
      });
    },
    write: (offset, data, done) => image.write(data, offset, false, done),
    zero: (offset, lengthBytes, done) =>
      image.zero(offset, lengthBytes, { fua: false, mayUnmap: true, fast: false }, done),
  };
}
