/**
 * Decodes device fields to values, for `kemari inspect`.
 *
 * @see QEMU migration/vmstate-types.c
 */
import { subsectionHeaderBytes, type VmdescField, type VmdescStruct } from "./vmdesc.ts";

/** How many bytes of a buffer are shown. */
const SHOWN_BYTES = 32;

/** A run of bytes, shown from its beginning. */
interface BytesValue {
  readonly kind: "bytes";
  readonly hex: string;
  readonly lengthBytes: number;
  /** Whether `hex` holds fewer bytes than there are. */
  readonly shortened: boolean;
}

/** A struct or subsection. */
interface StructValue {
  readonly kind: "struct";
  readonly fields: readonly DeviceField[];
}

/** 64-bit integers are `bigint`; `null` is a pointer that is not set. */
type ScalarValue = number | bigint | boolean;
export type FieldValue = ScalarValue | null | readonly ScalarValue[] | BytesValue | StructValue;

/** One decoded field. */
export interface DeviceField {
  readonly name: string;
  /** QEMU's type name; `subsection` for a subsection. */
  readonly type: string;
  /** Which element of an array of structs. */
  readonly index?: number;
  /** From the start of the stream. */
  readonly offset: number;
  readonly sizeBytes: number;
  readonly value: FieldValue;
}

/**
 * Decodes one struct's fields one after another, its subsections last.
 *
 * @param state Has the whole struct, as the walk has checked.
 * @param position Where the struct begins in `state`.
 * @param streamOffset Where `state` begins in the stream.
 */
export function* decodeDeviceFields(
  state: Uint8Array,
  struct: VmdescStruct,
  position: number,
  streamOffset: number,
): Generator<DeviceField> {
  for (const field of struct.fields) {
    if (field.struct === undefined) {
      const sizeBytes = field.elementBytes * field.arrayLength;
      yield {
        name: field.name,
        type: field.type,
        ...(field.index === undefined ? {} : { index: field.index }),
        offset: streamOffset + position,
        sizeBytes,
        value: plainValue(state.subarray(position, position + sizeBytes), field),
      };
      position += sizeBytes;
      continue;
    }
    // Elements without bytes are left out, however many there are.
    const elements = field.elementBytes === 0 ? Math.min(1, field.arrayLength) : field.arrayLength;
    for (let element = 0; element < elements; element++) {
      const index = field.index ?? (field.arrayLength > 1 ? element : undefined);
      yield {
        name: field.name,
        type: field.type,
        ...(index === undefined ? {} : { index }),
        offset: streamOffset + position,
        sizeBytes: field.elementBytes,
        value: structValue(state, field.struct, position, streamOffset),
      };
      position += field.elementBytes;
    }
  }
  for (const subsection of struct.subsections) {
    const headerBytes = subsectionHeaderBytes(subsection);
    const sizeBytes = headerBytes + subsection.sizeBytes;
    yield {
      name: subsection.vmsdName,
      type: "subsection",
      offset: streamOffset + position,
      sizeBytes,
      value: structValue(state, subsection, position + headerBytes, streamOffset),
    };
    position += sizeBytes;
  }
}

function structValue(
  state: Uint8Array,
  struct: VmdescStruct,
  position: number,
  streamOffset: number,
): StructValue {
  return { kind: "struct", fields: [...decodeDeviceFields(state, struct, position, streamOffset)] };
}

function plainValue(bytes: Uint8Array, field: VmdescField): FieldValue {
  if (field.type === "nullptr") return null;
  const decode = scalarDecoder(field.type, field.elementBytes);
  const isByteArray = field.elementBytes === 1 && field.arrayLength > 1 && field.type !== "bool";
  if (decode === undefined || isByteArray) return bytesValue(bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (field.arrayLength === 1) return decode(view, 0);
  return Array.from({ length: field.arrayLength }, (_, element) => {
    return decode(view, element * field.elementBytes);
  });
}

type ScalarDecoder = (view: DataView, offset: number) => ScalarValue;

/**
 * The decoder for a type's elements; `undefined`: show the bytes. All are big-endian: the "le" in
 * `int32 le` means "less or equal" to the loading side's value, as "equal" means equal.
 */
function scalarDecoder(type: string, elementBytes: number): ScalarDecoder | undefined {
  switch (`${type.replace(/ (equal|le)$/, "")} ${elementBytes}`) {
    case "bool 1":
      return (view, offset) => view.getUint8(offset) !== 0;
    case "int8 1":
      return (view, offset) => view.getInt8(offset);
    case "uint8 1":
      return (view, offset) => view.getUint8(offset);
    case "int16 2":
      return (view, offset) => view.getInt16(offset);
    case "uint16 2":
      return (view, offset) => view.getUint16(offset);
    case "int32 4":
      return (view, offset) => view.getInt32(offset);
    case "uint32 4":
      return (view, offset) => view.getUint32(offset);
    case "int64 8":
    // A timer's expiry in nanoseconds; -1 when it is not armed.
    case "timer 8":
      return (view, offset) => view.getBigInt64(offset);
    case "uint64 8":
      return (view, offset) => view.getBigUint64(offset);
    default:
      return undefined;
  }
}

function bytesValue(bytes: Uint8Array): BytesValue {
  let hex = "";
  for (const byte of bytes.subarray(0, SHOWN_BYTES)) hex += byte.toString(16).padStart(2, "0");
  return {
    kind: "bytes",
    hex,
    lengthBytes: bytes.length,
    shortened: bytes.length > SHOWN_BYTES,
  };
}
