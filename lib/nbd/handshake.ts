import { type ExportInfo, findExport, type Negotiated, transmissionFlags } from "./export_info.ts";
import { decodeContextQuery, decodeInfoQuery, decodeString } from "./option_data.ts";
import {
  BASE_ALLOCATION,
  BASE_ALLOCATION_ID,
  EXPORT_NAME_ZEROES,
  GREETING_BYTES,
  IHAVEOPT,
  isMagic,
  MAX_OPTION_BYTES,
  MAX_PAYLOAD_BYTES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_INFO,
  NBD_OPT,
  NBD_REP,
  NBD_REP_MAGIC,
  NBDMAGIC,
  OPTION_HEADER_BYTES,
  OPTION_REPLY_HEADER_BYTES,
  readU32,
  refuse,
  writeU16,
  writeU32,
  writeU64,
} from "./wire.ts";

type State = "flags" | "options" | "chosen" | "aborted";

const utf8 = new TextEncoder();
const DEFAULT_PREFERRED_BLOCK_BYTES = 4096;

/**
 * The server's half of option haggling, fixed newstyle, without I/O.
 *
 * ```text
 * flags ──client flags──► options ──EXPORT_NAME, GO──► chosen
 *                            └──ABORT──► aborted
 * ```
 *
 * A wrong request of the client is refused with an option reply, and haggling goes on; if no such
 * reply is possible, a WireError ends the connection, as the specification demands.
 */
export class Handshake {
  readonly #exports: readonly ExportInfo[];
  #state: State = "flags";
  #output: Uint8Array[];
  #noZeroes = false;
  #structured = false;
  /** The export that `base:allocation` was selected for. */
  #allocationOf: ExportInfo | undefined;
  #chosen: Negotiated | undefined;
  /** The option whose data is being skipped, since it is too long. */
  #skipped = 0;
  #skipBytes = 0;

  constructor(exports: readonly ExportInfo[]) {
    this.#exports = exports;
    const greeting = new Uint8Array(GREETING_BYTES);
    writeU32(greeting, 0, NBDMAGIC[0]);
    writeU32(greeting, 4, NBDMAGIC[1]);
    writeU32(greeting, 8, IHAVEOPT[0]);
    writeU32(greeting, 12, IHAVEOPT[1]);
    writeU16(greeting, 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    this.#output = [greeting];
  }

  /** Set once the client has chosen an export: transmission begins. */
  get chosen(): Negotiated | undefined {
    return this.#chosen;
  }
  /** The client has aborted. */
  get aborted(): boolean {
    return this.#state === "aborted";
  }
  /** Whether the connection may end here without anything being cut. */
  get atBoundary(): boolean {
    return this.#skipBytes === 0;
  }

  takeOutput(): Uint8Array[] {
    const output = this.#output;
    if (output.length > 0) this.#output = [];
    return output;
  }

  /**
   * Takes the client's flags or one option.
   *
   * @param offset Of `at` in the connection.
   * @returns One past the last byte taken; `at` if more bytes are needed.
   * @throws {WireError}
   */
  take(bytes: Uint8Array, at: number, end: number, offset: number): number {
    if (this.#skipBytes > 0) {
      const skipped = Math.min(end - at, this.#skipBytes);
      this.#skipBytes -= skipped;
      if (this.#skipBytes === 0) {
        this.#error(this.#skipped, NBD_REP.ERR_TOO_BIG, `more than ${MAX_OPTION_BYTES} bytes`);
      }
      return at + skipped;
    }
    if (this.#state === "flags") {
      if (end - at < 4) return at;
      this.#clientFlags(readU32(bytes, at), offset);
      return at + 4;
    }
    // A client that speaks another protocol is told so at once, not only after 16 bytes.
    if (end - at >= 8 && !isMagic(bytes, at, IHAVEOPT)) {
      refuse(offset, "bad-magic", "an option does not begin with IHAVEOPT");
    }
    if (end - at < OPTION_HEADER_BYTES) return at;
    const option = readU32(bytes, at + 8);
    const lengthBytes = readU32(bytes, at + 12);
    const body = at + OPTION_HEADER_BYTES;
    if (lengthBytes > MAX_OPTION_BYTES) {
      if (option === NBD_OPT.EXPORT_NAME) {
        refuse(offset + 12, "too-large", `an export name of ${lengthBytes} bytes`);
      }
      this.#skipped = option;
      this.#skipBytes = lengthBytes;
      return body;
    }
    if (end - body < lengthBytes) return at;
    this.#option(option, bytes.subarray(body, body + lengthBytes), offset);
    return body + lengthBytes;
  }

  #clientFlags(flags: number, offset: number): void {
    if ((flags & ~(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) !== 0) {
      refuse(offset, "unsupported", `client flags 0x${flags.toString(16)}, of which some are new`);
    }
    this.#noZeroes = (flags & NBD_FLAG_NO_ZEROES) !== 0;
    this.#state = "options";
  }

  #option(option: number, data: Uint8Array, offset: number): void {
    switch (option) {
      case NBD_OPT.EXPORT_NAME:
        return this.#exportName(data, offset);
      case NBD_OPT.ABORT:
        this.#reply(option, NBD_REP.ACK);
        this.#state = "aborted";
        return;
      case NBD_OPT.LIST:
        if (data.length > 0) return this.#invalid(option, "NBD_OPT_LIST takes no data");
        for (const { name, description } of this.#exports) {
          const encoded = utf8.encode(name);
          const length = new Uint8Array(4);
          writeU32(length, 0, encoded.length);
          this.#reply(option, NBD_REP.SERVER, length, encoded, utf8.encode(description ?? ""));
        }
        return this.#reply(option, NBD_REP.ACK);
      case NBD_OPT.STARTTLS:
        return this.#error(option, NBD_REP.ERR_POLICY, "no TLS: the socket is local");
      case NBD_OPT.INFO:
      case NBD_OPT.GO:
        return this.#info(option, data);
      case NBD_OPT.STRUCTURED_REPLY:
        if (data.length > 0) return this.#invalid(option, "NBD_OPT_STRUCTURED_REPLY takes no data");
        this.#structured = true;
        return this.#reply(option, NBD_REP.ACK);
      case NBD_OPT.LIST_META_CONTEXT:
      case NBD_OPT.SET_META_CONTEXT:
        return this.#metaContext(option, data);
      default:
        return this.#error(option, NBD_REP.ERR_UNSUP, `option ${option} is not known here`);
    }
  }

  /** The old way to choose an export, which has no error reply: errors end the connection. */
  #exportName(data: Uint8Array, offset: number): void {
    const name = decodeString(data);
    const info = name === undefined ? undefined : findExport(this.#exports, name);
    if (info === undefined) {
      refuse(offset, "refused", `there is no export called ${JSON.stringify(name ?? "?")}`);
    }
    const reply = new Uint8Array(10 + (this.#noZeroes ? 0 : EXPORT_NAME_ZEROES));
    writeU64(reply, 0, info.sizeBytes);
    writeU16(reply, 8, transmissionFlags(info, this.#structured));
    this.#output.push(reply);
    this.#choose(info);
  }

  #info(option: number, data: Uint8Array): void {
    const query = decodeInfoQuery(data);
    if (query === undefined) {
      return this.#invalid(option, "the data does not have the option's shape");
    }
    const info = findExport(this.#exports, query.name);
    if (info === undefined) return this.#unknown(option, query.name);
    const body = new Uint8Array(12);
    writeU16(body, 0, NBD_INFO.EXPORT);
    writeU64(body, 2, info.sizeBytes);
    writeU16(body, 10, transmissionFlags(info, this.#structured));
    this.#reply(option, NBD_REP.INFO, body);
    // Constraints apply to a client that did not ask for them too: so they are sent.
    this.#reply(option, NBD_REP.INFO, blockSizes(info));
    if (query.wanted.includes(NBD_INFO.NAME)) {
      this.#reply(option, NBD_REP.INFO, infoKind(NBD_INFO.NAME), utf8.encode(info.name));
    }
    if (query.wanted.includes(NBD_INFO.DESCRIPTION) && info.description !== undefined) {
      const text = utf8.encode(info.description);
      this.#reply(option, NBD_REP.INFO, infoKind(NBD_INFO.DESCRIPTION), text);
    }
    this.#reply(option, NBD_REP.ACK);
    if (option === NBD_OPT.GO) this.#choose(info);
  }

  /**
   * Listing: no query means all, a namespace (`base:`) all of its contexts. Setting: replaces the
   * earlier selection, also if it fails.
   */
  #metaContext(option: number, data: Uint8Array): void {
    const setting = option === NBD_OPT.SET_META_CONTEXT;
    if (setting) this.#allocationOf = undefined;
    if (!this.#structured) return this.#invalid(option, "structured replies come first");
    const query = decodeContextQuery(data);
    if (query === undefined) {
      return this.#invalid(option, "the data does not have the option's shape");
    }
    const info = findExport(this.#exports, query.name);
    if (info === undefined) return this.#unknown(option, query.name);
    const { queries } = query;
    const named = queries.includes(BASE_ALLOCATION);
    if (named || !setting && (queries.length === 0 || queries.includes("base:"))) {
      if (setting) this.#allocationOf = info;
      const id = new Uint8Array(4);
      writeU32(id, 0, setting ? BASE_ALLOCATION_ID : 0);
      this.#reply(option, NBD_REP.META_CONTEXT, id, utf8.encode(BASE_ALLOCATION));
    }
    this.#reply(option, NBD_REP.ACK);
  }

  #choose(info: ExportInfo): void {
    this.#state = "chosen";
    this.#chosen = {
      export: info,
      structured: this.#structured,
      allocation: this.#allocationOf === info,
    };
  }

  #unknown(option: number, name: string): void {
    this.#error(option, NBD_REP.ERR_UNKNOWN, `there is no export called ${JSON.stringify(name)}`);
  }

  #invalid(option: number, message: string): void {
    this.#error(option, NBD_REP.ERR_INVALID, message);
  }

  #error(option: number, type: number, message: string): void {
    this.#reply(option, type, utf8.encode(message));
  }

  #reply(option: number, type: number, ...data: Uint8Array[]): void {
    const header = new Uint8Array(OPTION_REPLY_HEADER_BYTES);
    writeU32(header, 0, NBD_REP_MAGIC[0]);
    writeU32(header, 4, NBD_REP_MAGIC[1]);
    writeU32(header, 8, option);
    writeU32(header, 12, type);
    writeU32(header, 16, data.reduce((sum, piece) => sum + piece.length, 0));
    this.#output.push(header, ...data);
  }
}

function infoKind(kind: number): Uint8Array {
  const bytes = new Uint8Array(2);
  writeU16(bytes, 0, kind);
  return bytes;
}

/** NBD_INFO_BLOCK_SIZE: `u32 minimum, u32 preferred, u32 maximum payload`. */
function blockSizes(info: ExportInfo): Uint8Array {
  const minimum = info.minimumBlockBytes ?? 1;
  const bytes = new Uint8Array(14);
  writeU16(bytes, 0, NBD_INFO.BLOCK_SIZE);
  writeU32(bytes, 2, minimum);
  writeU32(
    bytes,
    6,
    Math.max(minimum, info.preferredBlockBytes ?? DEFAULT_PREFERRED_BLOCK_BYTES),
  );
  writeU32(bytes, 10, MAX_PAYLOAD_BYTES);
  return bytes;
}
