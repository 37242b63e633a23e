/**
 * The pieces of a migration stream around the pages, as `-incoming` expects them.
 *
 * @see QEMU migration/savevm.c, qemu_loadvm_state(); migration/ram.c, ram_save_setup()
 */
import {
  QEMU_VM_FILE_MAGIC,
  QEMU_VM_FILE_VERSION,
  RAM_SAVE_FLAG,
  type RamBlock,
  SECTION,
} from "./wire.ts";

/** The id under which QEMU registers `ram`; any id would do, as long as all sections agree. */
const RAM_SECTION_ID = 2;
const RAM_SECTION_VERSION = 4;

/**
 * Everything before the pages: header, CONFIGURATION as received, the block list in ram START,
 * and the opening of ram END.
 *
 * @param configuration The section as received; empty if the machine sent none.
 * @param addresses Makes the stream one for a QEMU with `x-ignore-shared`: CONFIGURATION names the
 *   capability, and each block's length is followed by its `u64` address in the region that holds
 *   it. QEMU compares the addresses of shared blocks; those of others do not matter.
 */
export function composePrologue(
  configuration: Uint8Array,
  blocks: readonly RamBlock[],
  addresses?: ReadonlyMap<string, number>,
): Uint8Array {
  const out = new ByteWriter();
  out.u32(QEMU_VM_FILE_MAGIC);
  out.u32(QEMU_VM_FILE_VERSION);
  out.bytes(configuration);
  if (addresses !== undefined && configuration.length > 0) capabilities(out, ["x-ignore-shared"]);
  out.u8(SECTION.QEMU_VM_SECTION_START);
  out.u32(RAM_SECTION_ID);
  out.name("ram");
  out.u32(0);
  out.u32(RAM_SECTION_VERSION);
  const totalBytes = blocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  out.u64(totalBytes + RAM_SAVE_FLAG.MEM_SIZE);
  for (const { name, lengthBytes } of blocks) {
    out.name(name);
    out.u64(lengthBytes);
    if (addresses !== undefined) out.u64(addresses.get(name) ?? 0);
  }
  out.u64(RAM_SAVE_FLAG.EOS);
  footer(out);
  out.u8(SECTION.QEMU_VM_SECTION_END);
  out.u32(RAM_SECTION_ID);
  return out.take();
}

/** The end of ram END, behind the last page. */
export function composeRamEnd(): Uint8Array {
  const out = new ByteWriter();
  out.u64(RAM_SAVE_FLAG.EOS);
  footer(out);
  return out.take();
}

/** VMDESCRIPTION around its JSON; goes behind the device state, whose last byte is EOF. */
export function composeVmdescription(json: Uint8Array): Uint8Array {
  const out = new ByteWriter();
  out.u8(SECTION.QEMU_VM_VMDESCRIPTION);
  out.u32(json.length);
  out.bytes(json);
  return out.take();
}

/** The header of the first record of a block: `u64 offset | flags, u8 n, name`. */
export function composeNamedHeader(name: string, offset: number, flags: number): Uint8Array {
  const out = new ByteWriter();
  out.u64(offset + flags);
  out.name(name);
  return out.take();
}

/** The subsection of CONFIGURATION that names the capabilities that change the stream's format. */
function capabilities(out: ByteWriter, names: readonly string[]): void {
  out.u8(SECTION.QEMU_VM_SUBSECTION);
  out.name("configuration/capabilities");
  out.u32(1);
  out.u32(names.length);
  for (const name of names) out.name(name);
}

function footer(out: ByteWriter): void {
  out.u8(SECTION.QEMU_VM_SECTION_FOOTER);
  out.u32(RAM_SECTION_ID);
}

/** Writes big-endian fields one after another. */
class ByteWriter {
  #bytes = new Uint8Array(256);
  #length = 0;

  u8(value: number): void {
    this.#reserve(1)[this.#length++] = value;
  }

  u32(value: number): void {
    const bytes = this.#reserve(4);
    new DataView(bytes.buffer).setUint32(this.#length, value);
    this.#length += 4;
  }

  u64(value: number): void {
    this.u32(Math.floor(value / 0x1_0000_0000));
    this.u32(value % 0x1_0000_0000);
  }

  name(text: string): void {
    const encoded = new TextEncoder().encode(text);
    this.u8(encoded.length);
    this.bytes(encoded);
  }

  bytes(bytes: Uint8Array): void {
    this.#reserve(bytes.length).set(bytes, this.#length);
    this.#length += bytes.length;
  }

  take(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  #reserve(more: number): Uint8Array {
    if (this.#length + more > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(this.#length + more, 2 * this.#bytes.length));
      grown.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = grown;
    }
    return this.#bytes;
  }
}
