/**
 * The content of a migration stream, as {@link StreamParser} reports it: the records and the
 * visitor.
 */
import type { DeviceSection, SectionName } from "./devices/device_state.ts";
import type { RamRecord } from "./ram_record.ts";
import type { RamBlock } from "./wire.ts";

/** CONFIGURATION: the stream's machine. */
export interface Configuration {
  readonly machine: string;
  /** log2 of the page size in bytes, if the stream has it. */
  readonly targetPageBits?: number;
  /** The VM's UUID, as 32 hexadecimal digits, if the stream has it. */
  readonly uuid?: string;
  /** Capabilities that change the stream's format, such as `x-ignore-shared`. */
  readonly capabilities: readonly string[];
  /** The section as received, type byte included; a copy that the event's reader owns. */
  readonly raw: Uint8Array;
}

/**
 * `offset` is the record's first byte, counted from the first byte ever parsed; `endOffset` is one
 * past its last.
 */
interface Located {
  readonly offset: number;
  readonly endOffset: number;
}

/** Everything in a stream but the RAM records, in order. */
export type StreamEvent =
  & Located
  & (
    | { readonly kind: "header"; readonly version: number }
    | { readonly kind: "configuration"; readonly configuration: Configuration }
    | { readonly kind: "command"; readonly command: number; readonly data: Uint8Array }
    | {
      readonly kind: "ram-section";
      /** START, PART or END. */
      readonly type: number;
      readonly sectionId: number;
    }
    | { readonly kind: "ram-blocks"; readonly blocks: readonly RamBlock[] }
    | {
      /** All device sections of a plain stream or of a COLO first pass, EOF byte included. */
      readonly kind: "device-state";
      readonly state: Uint8Array;
      /**
       * The same bytes, split by the description that follows; without a description, by headers
       * and footers: then no section has fields.
       */
      readonly sections: readonly DeviceSection[];
    }
    | { readonly kind: "vmdescription"; readonly json: Uint8Array }
    /** A whole stream has passed, including VMDESCRIPTION if the machine sends it. */
    | { readonly kind: "stream-complete" }
    /** A COLO message from QEMU; VMSTATE_SIZE comes with its size in bytes. */
    | { readonly kind: "colo"; readonly message: number; readonly sizeBytes?: number }
    /** The EOF byte that ends a COLO checkpoint's RAM. */
    | { readonly kind: "checkpoint-ram-end" }
    | {
      /** A COLO checkpoint has passed; its device sections up to and including EOF. */
      readonly kind: "checkpoint";
      readonly state: Uint8Array;
      /**
       * The same bytes, split without a description: the same array as long as their layout does
       * not change; `undefined` if they could not be split.
       */
      readonly sections: readonly SectionName[] | undefined;
    }
  );

/** Takes the records of `ram` sections, one call for each, while the parser runs. */
export interface RamVisitor {
  /** A page. @param record Valid during the call only, as {@link RamRecord} says. */
  page(record: RamRecord): void;
  /**
   * HOOK or MULTIFD_FLUSH at stream offset `offset`: marks whose content travels on other channels.
   */
  mark(flag: number, offset: number): void;
}

/** Takes what the parser finds. A throw from it ends the parsing. */
export interface StreamVisitor extends RamVisitor {
  event(event: StreamEvent): void;
}
