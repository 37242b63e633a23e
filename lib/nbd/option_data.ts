/** Decodes the data of options, within bounds. */
import { MAX_STRING_BYTES, readU16, readU32 } from "./wire.ts";

/** Data of NBD_OPT_INFO and NBD_OPT_GO: `u32 n, name, u16 count, count × u16 NBD_INFO_*`. */
interface InfoQuery {
  readonly name: string;
  readonly wanted: readonly number[];
}

/** Data of NBD_OPT_*_META_CONTEXT: `u32 n, name, u32 count, count × (u32 n, query)`. */
interface ContextQuery {
  readonly name: string;
  readonly queries: readonly string[];
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** @returns The text; `undefined` if it is too long, not UTF-8 or contains a NUL. */
export function decodeString(bytes: Uint8Array): string | undefined {
  if (bytes.length > MAX_STRING_BYTES) return undefined;
  try {
    const text = utf8.decode(bytes);
    return text.includes("\0") ? undefined : text;
  } catch {
    return undefined;
  }
}

/** Takes length-prefixed strings off the front of an option's data. */
class Fields {
  #at = 0;
  constructor(readonly data: Uint8Array) {}

  get left(): number {
    return this.data.length - this.#at;
  }
  u16(): number | undefined {
    return this.left < 2 ? undefined : readU16(this.data, (this.#at += 2) - 2);
  }
  u32(): number | undefined {
    return this.left < 4 ? undefined : readU32(this.data, (this.#at += 4) - 4);
  }
  string(): string | undefined {
    const length = this.u32();
    if (length === undefined || length > this.left) return undefined;
    return decodeString(this.data.subarray(this.#at, this.#at += length));
  }
}

/** @returns `undefined` if the data does not have exactly this shape. */
export function decodeInfoQuery(data: Uint8Array): InfoQuery | undefined {
  const fields = new Fields(data);
  const name = fields.string();
  const count = fields.u16();
  if (name === undefined || count === undefined || fields.left !== 2 * count) return undefined;
  return { name, wanted: Array.from({ length: count }, () => fields.u16()!) };
}

/** @returns `undefined` if the data does not have exactly this shape. */
export function decodeContextQuery(data: Uint8Array): ContextQuery | undefined {
  const fields = new Fields(data);
  const name = fields.string();
  const count = fields.u32();
  // Every query has at least four bytes: a larger count cannot be true, and is refused before the
  // loop.
  if (name === undefined || count === undefined || 4 * count > fields.left) return undefined;
  const queries: string[] = [];
  for (let i = 0; i < count; i++) {
    const query = fields.string();
    if (query === undefined) return undefined;
    queries.push(query);
  }
  return fields.left === 0 ? { name, queries } : undefined;
}
