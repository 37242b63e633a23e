import { NBD_FLAG } from "./wire.ts";

/** An export, as clients are told about it. */
export interface ExportInfo {
  /**
   * The name by which a client asks for it. If there is only one export, an empty name means it
   * too.
   */
  readonly name: string;
  readonly sizeBytes: number;
  /** Shown to people. */
  readonly description?: string;
  /** Writes, trims and zeroes are refused with EPERM. */
  readonly readOnly?: boolean;
  /** Offsets and lengths must be multiples of this; 1 if absent. A power of two. */
  readonly minimumBlockBytes?: number;
  /** The unit that can be read or written without extra work; 4096 if absent. */
  readonly preferredBlockBytes?: number;
  /** Whether all connections see each other's writes and flushes. */
  readonly multiConn?: boolean;
}

/** What the client and the server have agreed on when haggling ends. */
export interface Negotiated {
  readonly export: ExportInfo;
  /** Whether reads are answered in chunks, and errors with a text. */
  readonly structured: boolean;
  /** Whether NBD_CMD_BLOCK_STATUS may be used, for `base:allocation`. */
  readonly allocation: boolean;
}

/** The transmission flags of an export. `structured`: as negotiated so far. */
export function transmissionFlags(info: ExportInfo, structured: boolean): number {
  let flags = NBD_FLAG.HAS_FLAGS | NBD_FLAG.SEND_FLUSH | NBD_FLAG.SEND_FUA | NBD_FLAG.SEND_CACHE;
  if (info.readOnly) flags |= NBD_FLAG.READ_ONLY;
  else flags |= NBD_FLAG.SEND_TRIM | NBD_FLAG.SEND_WRITE_ZEROES | NBD_FLAG.SEND_FAST_ZERO;
  if (structured) flags |= NBD_FLAG.SEND_DF;
  if (info.multiConn) flags |= NBD_FLAG.CAN_MULTI_CONN;
  return flags;
}

/** The export that a client means, if there is one. */
export function findExport(
  exports: readonly ExportInfo[],
  name: string,
): ExportInfo | undefined {
  const exact = exports.find((each) => each.name === name);
  return exact ?? (name === "" && exports.length === 1 ? exports[0] : undefined);
}
