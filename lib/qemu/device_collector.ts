import { type DeviceSection, walkDeviceState } from "./device_state.ts";
import { findDeviceStateEnd } from "./device_state_end.ts";
import { fail } from "./ram_records.ts";
import { parseVmdesc } from "./vmdesc.ts";
import { LIMITS, SECTION } from "./wire.ts";

/** Device state with its description, checked against each other. */
export interface DescribedState {
  /** From the first section to the EOF byte; owned by the reader. */
  readonly state: Uint8Array;
  readonly json: Uint8Array;
  readonly sections: readonly DeviceSection[];
  /** Bytes of state, description and what is between them. */
  readonly totalBytes: number;
}

/**
 * Collects device state, whose end only shows when it has come: by the description behind it in a
 * plain stream, by an announced size in a COLO checkpoint.
 */
export class DeviceCollector {
  #bytes = new Uint8Array(0);
  #length = 0;
  #searchFrom = 0;
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
    // A first pass with its description may be large; checkpoints should not keep its memory.
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

  /** Looks for the description, checks state and description; `undefined` if more is to come. */
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

  /** A copy of what was collected. */
  take(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  /** Whether the bytes collected end as device state does: footer (0x7e, u32), EOF. */
  get endsLikeDeviceState(): boolean {
    const last = this.#length - 1;
    return last >= 5 && this.#bytes[last] === SECTION.QEMU_VM_EOF &&
      this.#bytes[last - 5] === SECTION.QEMU_VM_SECTION_FOOTER;
  }
}
