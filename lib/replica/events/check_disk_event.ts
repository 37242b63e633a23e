import { WireError } from "../../errors.ts";
import type { SecondaryDiskConfig } from "./disk_copy.ts";
import type { TapEvent } from "./tap_events.ts";

/** The events of disks. */
export type DiskEvent = Exclude<TapEvent, { readonly kind: "packet" }>;

/**
 * Checks a disk's event against the disk of that name here.
 *
 * @param disk Undefined if there is no disk of that name.
 * @param offset The event's offset in the connection, for errors.
 * @throws {WireError} `bad-value` if the event does not fit the disk.
 */
export function checkDiskEvent(
  event: DiskEvent,
  disk: SecondaryDiskConfig | undefined,
  offset: number,
): void {
  const { kind, tap } = event;
  const fail = (what: string, hint?: string): never => {
    throw new WireError("transaction", offset, "bad-value", what, { hint });
  };
  if (disk === undefined) {
    return fail(`a write to disk tap ${tap}`, `give recv --disk ${tap}=PATH,unix:SOCK`);
  }
  const { sizeBytes, mode } = disk;
  if (kind === "disk") {
    if (event.mode !== mode) {
      fail(
        `disk ${tap} is ${event.mode} at the primary and ${mode} here`,
        "give both sides the same mode=",
      );
    }
    if (sizeBytes !== event.sizeBytes) {
      fail(
        `disk ${tap} has ${event.sizeBytes} bytes at the primary and ${sizeBytes} here`,
        mode === "replicated"
          ? `truncate -s ${event.sizeBytes} the image here`
          : "start both ends anew: the image had another size when one of them opened it",
      );
    }
    return;
  }
  if (mode === "shared" && (kind === "copy" || kind === "copied")) {
    return fail(`a part of a copy of disk ${tap}, which is shared`);
  }
  if (kind === "copied") return;
  const length = kind === "zero" ? event.lengthBytes : event.data.length;
  if (event.offset + length <= sizeBytes) return;
  const end = BigInt(event.offset) + BigInt(length);
  fail(`a ${kind} up to ${end} of disk ${tap}, which has ${sizeBytes} bytes`);
}
