/**
 * QEMU's own description of its device state: the JSON in a VMDESCRIPTION section.
 *
 * Device state carries no lengths on the wire. This description, which follows it, gives the size
 * of every field, so the size of every section can be computed before reading it. Pure: no I/O; the
 * input is not kept.
 *
 * @see QEMU migration/vmstate.c (vmsd_desc_field_start), scripts/analyze-migration.py
 */
import { WireError, type WireFault } from "../../errors.ts";
import { LIMITS } from "../wire.ts";

/** The longest description that is read. A large guest's is about 1 MB. */
export const MAX_VMDESC_BYTES = 64 * 1024 * 1024;

const MAX_DEPTH = 32;

/** Field types whose description is in the field object itself instead of under `struct`. */
const INLINE_STRUCT_TYPES: ReadonlySet<string> = new Set(["tmp", "vstruct"]);

/** One field, or a run of `arrayLength` equal ones that QEMU described once. */
export interface VmdescField {
  readonly name: string;
  /** QEMU's own type name, such as `uint32`, `timer`, `pci config`. */
  readonly type: string;
  /** The element's index in its array, if QEMU described the elements one by one. */
  readonly index?: number;
  readonly arrayLength: number;
  readonly elementBytes: number;
  /** The structure of an element; absent if only the size is known. */
  readonly struct?: VmdescStruct;
}

/** A described struct: its fields in order, then its subsections. */
export interface VmdescStruct {
  readonly vmsdName: string;
  readonly version: number;
  readonly fields: readonly VmdescField[];
  readonly subsections: readonly VmdescStruct[];
  /** The size of all fields and subsections together, with the subsections' headers. */
  readonly sizeBytes: number;
  /** Whether it has a subsection at any depth. */
  readonly hasSubsections: boolean;
}

/** One device: one SECTION_FULL. */
export interface VmdescDevice {
  readonly name: string;
  readonly instance: number;
  readonly struct: VmdescStruct;
}

/** The whole description. */
export interface Vmdesc {
  readonly pageSizeBytes: number;
  /** Described by QEMU 8.1 and later. */
  readonly configuration?: VmdescStruct;
  /** In the order in which their sections were written. */
  readonly devices: readonly VmdescDevice[];
}

type JsonObject = { readonly [key: string]: unknown };

/**
 * Parses a VMDESCRIPTION's JSON and computes every size in it.
 *
 * @param json The JSON's bytes, without the section's header.
 * @param streamOffset Where the JSON begins in the stream; every error names it.
 * @throws {WireError} `too-large` beyond {@link MAX_VMDESC_BYTES} or if sizes add up to more than a
 *   device state may have; `bad-value` if it is not JSON or lacks what a description must have;
 *   `bad-length` if a struct's fields do not add up to the struct.
 */
export function parseVmdesc(json: Uint8Array, streamOffset: number): Vmdesc {
  if (json.length > MAX_VMDESC_BYTES) {
    throw fault(
      streamOffset,
      "too-large",
      `the device description has ${json.length} bytes, more than ${MAX_VMDESC_BYTES}`,
    );
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(json));
  } catch (cause) {
    throw fault(streamOffset, "bad-value", "the device description is not valid JSON", cause);
  }
  const reader = new Reader(streamOffset);
  const root = reader.object(parsed, "description");
  const devices = reader.array(root, "devices", "description").map((item) => reader.device(item));
  const seen = new Set<string>();
  for (const { name, instance } of devices) {
    const key = deviceKey(name, instance);
    if (seen.has(key)) {
      throw fault(
        streamOffset,
        "bad-value",
        `device ${quote(name)} ${instance} is described twice`,
      );
    }
    seen.add(key);
  }
  const pageSizeBytes = reader.count(root, "page_size", "description");
  if (pageSizeBytes < 256 || (pageSizeBytes & (pageSizeBytes - 1)) !== 0) {
    throw fault(streamOffset, "bad-value", `page_size ${pageSizeBytes} is not a power of two`);
  }
  return {
    pageSizeBytes,
    ...(root.configuration === undefined ? {} : {
      configuration: reader.struct(root.configuration, "configuration", 0),
    }),
    devices,
  };
}

/** The key of a device: section names repeat, with other instance numbers. */
export function deviceKey(name: string, instance: number): string {
  return `${instance} ${name}`;
}

/** Bytes before a subsection's fields: 0x05, `u8` length, name, `u32` version. */
export function subsectionHeaderBytes(subsection: VmdescStruct): number {
  return 6 + new TextEncoder().encode(subsection.vmsdName).length;
}

/** Text from a peer, fit for a message: escaped and shortened. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}

function fault(offset: number, kind: WireFault, message: string, cause?: unknown): WireError {
  return new WireError("vmdesc", offset, kind, message, { cause });
}

/** Reads typed values from parsed JSON; `where` is the path for errors. */
class Reader {
  readonly #offset: number;

  constructor(offset: number) {
    this.#offset = offset;
  }

  device(value: unknown): VmdescDevice {
    const device = this.object(value, "devices[]");
    const name = this.string(device, "name", "devices[]");
    const instance = this.count(device, "instance_id", name);
    // Devices older than vmstate describe themselves as one buffer; they have no vmsd_name.
    return { name, instance, struct: this.struct(device, name, 0) };
  }

  struct(value: unknown, where: string, depth: number): VmdescStruct {
    if (depth > MAX_DEPTH) {
      throw fault(this.#offset, "too-large", `${quote(where)} is nested deeper than ${MAX_DEPTH}`);
    }
    const object = this.object(value, where);
    const fields = this.array(object, "fields", where).map((item) => {
      return this.field(item, where, depth);
    });
    const subsections = object.subsections === undefined
      ? []
      : this.array(object, "subsections", where).map((item) => {
        const subsection = this.struct(item, `${where}/subsection`, depth + 1);
        if (subsection.vmsdName === "" || subsectionHeaderBytes(subsection) > 6 + 255) {
          throw this.#bad(where, "has a subsection without a usable name");
        }
        return subsection;
      });
    let sizeBytes = 0;
    for (const field of fields) sizeBytes += field.elementBytes * field.arrayLength;
    for (const sub of subsections) sizeBytes += subsectionHeaderBytes(sub) + sub.sizeBytes;
    if (sizeBytes > LIMITS.deviceStateBytes) {
      throw fault(
        this.#offset,
        "too-large",
        `${quote(where)} claims ${sizeBytes} bytes, more than ${LIMITS.deviceStateBytes}`,
      );
    }
    return {
      vmsdName: object.vmsd_name === undefined ? "" : this.string(object, "vmsd_name", where),
      version: object.version === undefined ? 0 : this.integer(object, "version", where),
      fields,
      subsections,
      sizeBytes,
      hasSubsections: subsections.length > 0 ||
        fields.some((field) => field.struct?.hasSubsections === true),
    };
  }

  field(value: unknown, parent: string, depth: number): VmdescField {
    const object = this.object(value, `${parent} field`);
    const name = this.string(object, "name", `${parent} field`);
    const where = `${parent}/${name}`;
    const type = this.string(object, "type", where);
    const elementBytes = this.count(object, "size", where);
    const struct = this.#fieldStruct(object, type, elementBytes, where, depth);
    return {
      name,
      type,
      ...(object.index === undefined ? {} : { index: this.count(object, "index", where) }),
      arrayLength: object.array_len === undefined ? 1 : this.count(object, "array_len", where),
      elementBytes,
      ...(struct === undefined ? {} : { struct }),
    };
  }

  #fieldStruct(
    object: JsonObject,
    type: string,
    elementBytes: number,
    where: string,
    depth: number,
  ): VmdescStruct | undefined {
    const nested = object.struct ?? (INLINE_STRUCT_TYPES.has(type) ? object : undefined);
    // Lists and trees repeat `fields` in one object; only their size is reliable. The same applies
    // to a null pointer, which old QEMUs describe as an empty struct of one byte.
    if (nested === undefined || this.object(nested, where).fields === undefined) return undefined;
    const struct = this.struct(nested, where, depth + 1);
    if (struct.sizeBytes === elementBytes) return struct;
    // QEMU measured this size, but inferred an inner array's from its first element: where such
    // elements differ, the measured size is the true one and the inside stays unread.
    if (object.struct === undefined || hasInferredArray(struct)) return undefined;
    throw fault(
      this.#offset,
      "bad-length",
      `${quote(where)} claims ${elementBytes} bytes, but its fields have ${struct.sizeBytes}`,
    );
  }

  object(value: unknown, where: string): JsonObject {
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return value as JsonObject;
    }
    throw this.#bad(where, "is not an object");
  }

  array(object: JsonObject, key: string, where: string): readonly unknown[] {
    const value = object[key];
    if (Array.isArray(value)) return value;
    throw this.#bad(where, `has no list ${quote(key)}`);
  }

  string(object: JsonObject, key: string, where: string): string {
    const value = object[key];
    if (typeof value === "string") return value;
    throw this.#bad(where, `has no text ${quote(key)}`);
  }

  integer(object: JsonObject, key: string, where: string): number {
    const value = object[key];
    if (typeof value === "number" && Number.isSafeInteger(value)) return value;
    throw this.#bad(where, `has no whole number ${quote(key)}`);
  }

  /** A non-negative integer. */
  count(object: JsonObject, key: string, where: string): number {
    const value = this.integer(object, key, where);
    if (value >= 0 && value <= 0xffff_ffff) return value;
    throw this.#bad(where, `has ${quote(key)} out of range: ${value}`);
  }

  #bad(where: string, what: string): WireError {
    return fault(this.#offset, "bad-value", `in the device description, ${quote(where)} ${what}`);
  }
}

function hasInferredArray(struct: VmdescStruct): boolean {
  return struct.fields.some((field) => {
    return field.arrayLength > 1 || (field.struct !== undefined && hasInferredArray(field.struct));
  }) || struct.subsections.some(hasInferredArray);
}
