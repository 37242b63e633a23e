import { WireError } from "../../errors.ts";
import { endsLikeDeviceState, partitionDeviceState } from "./device_partition.ts";
import { type DeviceSection, FOOTER_BYTES, walkDeviceState } from "./device_state.ts";
import { findDeviceStateEnd } from "./device_state_end.ts";
import { fail } from "../ram_parser.ts";
import { parseVmdesc } from "./vmdesc.ts";
import { u32 } from "../section_records.ts";
import {
  COLO_MESSAGE,
  LIMITS,
  QEMU_VM_FILE_MAGIC,
  QEMU_VM_FILE_VERSION,
  SECTION,
} from "../wire.ts";

/** A whole device state, with every byte accounted for. */
interface CollectedState {
  /** From the first section to the EOF byte; owned by the reader. */
  readonly state: Uint8Array;
  readonly sections: readonly DeviceSection[];
}

/** Device state with its description, checked against each other. */
interface DescribedState extends CollectedState {
  readonly json: Uint8Array;
  /** Bytes of state, description and what is between them. */
  readonly totalBytes: number;
}

/**
 * Collects device state, whose end is found by the description behind it in a plain stream, by the
 * announced size in a COLO checkpoint, or, if there is neither, by a call.
 */
export class DeviceCollector {
  #bytes = new Uint8Array(0);
  #length = 0;
  #searchFrom = 0;
  #followedFrom = 0;
  /** Stream offset of the first byte collected. */
  offset = 0;
  /** Bytes announced by VMSTATE_SIZE. */
  wantedBytes = 0;

  get lengthBytes(): number {
    return this.#length;
  }

  start(offset: number, wantedBytes = 0): void {
    this.offset = offset;
    this.wantedBytes = wantedBytes;
    this.#length = 0;
    this.#searchFrom = 0;
    this.#followedFrom = 0;
    // A first pass with its description may be large; its memory should not be kept for
    // checkpoints.
    if (this.#bytes.length > 4 * 2 ** 20) this.#bytes = new Uint8Array(0);
  }

  add(bytes: Uint8Array, start: number, end: number): void {
    const needed = this.#length + end - start;
    if (needed > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(needed, 2 * this.#bytes.length, 64 * 1024));
      grown.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = grown;
    }
    this.#bytes.set(bytes.subarray(start, end), this.#length);
    this.#length = needed;
  }

  /**
   * Looks for the description, and checks state and description; `undefined` if more bytes are
   * needed.
   */
  described(): DescribedState | undefined {
    const collected = this.#bytes.subarray(0, this.#length);
    const search = findDeviceStateEnd(collected, this.#searchFrom);
    if (search.kind === "more") {
      this.#searchFrom = search.from;
      if (search.from > LIMITS.deviceStateBytes) {
        fail(
          this.offset + search.from,
          "too-large",
          `device state goes on for over ${LIMITS.deviceStateBytes} bytes`,
        );
      }
      return undefined;
    }
    const state = collected.slice(0, search.eofOffset + 1);
    const json = collected.slice(search.jsonStart, search.jsonEnd);
    const vmdesc = parseVmdesc(json, this.offset + search.jsonStart);
    const sections = walkDeviceState(state, vmdesc, this.offset);
    return { state, json, sections, totalBytes: search.jsonEnd };
  }

  /**
   * The collected bytes, as a whole state without a description.
   *
   * @param lengthBytes How much of it; all by default.
   * @throws {WireError} see {@link partitionDeviceState}.
   */
  undescribed(lengthBytes = this.#length): CollectedState {
    const state = this.#bytes.slice(0, lengthBytes);
    const sections = partitionDeviceState(state, this.offset).map((section): DeviceSection => {
      const { name, instance, version, sectionId, start, sizeBytes } = section;
      const offset = this.offset + start;
      return { name, instance, version, sectionId, offset, sizeBytes, fields: noFields };
    });
    return { state, sections };
  }

  /**
   * Looks for a whole state without a description that another stream or a COLO checkpoint follows.
   * Only for recordings, whose content is trusted: a guest can make a device's state contain such
   * bytes.
   *
   * @returns How many bytes the state has; `undefined` if there is no such place.
   */
  followed(): number | undefined {
    const bytes = this.#bytes.subarray(0, this.#length);
    for (let footer = this.#followedFrom;;) {
      footer = bytes.indexOf(SECTION.QEMU_VM_SECTION_FOOTER, footer);
      // This is tried again when everything that may follow has come.
      if (footer < 0 || footer + FOLLOWED_BYTES > bytes.length) {
        this.#followedFrom = footer < 0 ? bytes.length : footer;
        return undefined;
      }
      const end = footer + FOOTER_BYTES + 1;
      if (bytes[end - 1] === SECTION.QEMU_VM_EOF && isFollowed(bytes, end) && this.#isWhole(end)) {
        return end;
      }
      footer++;
    }
  }

  #isWhole(lengthBytes: number): boolean {
    try {
      partitionDeviceState(this.#bytes.subarray(0, lengthBytes), 0);
      return true;
    } catch (error) {
      if (error instanceof WireError) return false;
      throw error;
    }
  }

  /** A copy of what was collected. */
  take(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  /** Whether the collected bytes are a whole state, if no more come. */
  get isWholeState(): boolean {
    return endsLikeDeviceState(this.#bytes.subarray(0, this.#length)) &&
      this.#isWhole(this.#length);
  }
}

function* noFields(): Generator<never> {}

/** Footer, EOF and the eight bytes by which the following record is recognized. */
const FOLLOWED_BYTES = FOOTER_BYTES + 1 + 8;

/** Whether a stream's header, or a checkpoint's first two messages, are at `at`. */
function isFollowed(bytes: Uint8Array, at: number): boolean {
  const first = u32(bytes, at);
  const second = u32(bytes, at + 4);
  return first === QEMU_VM_FILE_MAGIC && second === QEMU_VM_FILE_VERSION ||
    first === COLO_MESSAGE.CHECKPOINT_REQUEST && second === COLO_MESSAGE.VMSTATE_SEND;
}
