/** Ends of streams that are none, as errors. */
import { WireError } from "../errors.ts";

/** Bytes of device state stand behind what somebody has said to be its end. */
export function refuseMore(offset: number, byte: number): never {
  throw new WireError(
    "migration",
    offset,
    "bad-order",
    `device state goes on (byte 0x${byte.toString(16)}) behind what was taken for its end`,
    {
      hint: "QEMU was silent in the middle of it; let the description end it: " +
        "start the VM without -machine suppress-vmdesc=on",
    },
  );
}

/** What looks like several streams has no descriptions between them. */
export function refuseSeveral(offset: number): never {
  throw new WireError(
    "migration",
    offset,
    "unsupported",
    "several streams in a row, of a machine that does not describe its state: " +
      "where the first one ends cannot be told for certain",
    { hint: "send one stream at a time, or start the VM without -machine suppress-vmdesc=on" },
  );
}

/** @param place What the stream ends inside of, in words. */
export function refuseTruncated(offset: number, place: string): never {
  throw new WireError("migration", offset, "truncated", `the stream ends inside ${place}`, {
    hint: "the migration was cancelled, QEMU died, or the file was cut",
  });
}
