/** Errors for streams that do not end properly. */
import { WireError } from "../errors.ts";

/** The error for bytes behind the announced end of device state. */
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

/** The error for several streams without descriptions between them. */
export function refuseSeveral(offset: number): never {
  throw new WireError(
    "migration",
    offset,
    "unsupported",
    "several streams in a row, of a machine that does not describe its state: " +
      "the end of the first one is not certain",
    { hint: "send one stream at a time, or start the VM without -machine suppress-vmdesc=on" },
  );
}

/** @param place The place of the stream's end, in words. */
export function refuseTruncated(offset: number, place: string): never {
  throw new WireError("migration", offset, "truncated", `the stream ends inside ${place}`, {
    hint: "the migration was cancelled, QEMU died, or the file was cut",
  });
}
