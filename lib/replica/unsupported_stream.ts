/** Refuses, by name, what QEMU may put into a migration stream and kemari cannot replicate. */
import { WireError } from "../errors.ts";
import type { StreamEvent } from "../qemu/stream_events.ts";
import { nameOf, RAM_SAVE_FLAG } from "../qemu/wire.ts";

/** @throws {WireError} `unsupported` if the configuration says that RAM is left out. */
export function checkConfiguration(
  event: Extract<StreamEvent, { readonly kind: "configuration" }>,
): void {
  if (!event.configuration.capabilities.includes("x-ignore-shared")) return;
  throw new WireError(
    "migration",
    event.offset,
    "unsupported",
    "the stream leaves out RAM that is shared with a file",
    { hint: "migrate_set_capability x-ignore-shared off" },
  );
}

/** The error for a RAM record whose content travels on other channels. */
export function unsupportedMark(flag: number, recordOffset: number): WireError {
  const name = nameOf(RAM_SAVE_FLAG, flag);
  return new WireError(
    "migration",
    recordOffset,
    "unsupported",
    `a ${name} record: pages travel outside this stream`,
    { hint: "migrate over one plain channel: multifd off, no rdma:" },
  );
}

/** The error for bytes behind a transaction's state, which has to be its end. */
export function trailingBytes(streamOffset: number): WireError {
  const what = "bytes behind the end of the transaction's state";
  return new WireError("migration", streamOffset, "bad-length", what);
}
