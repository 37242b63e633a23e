import { type KnownSection, sketchDeviceState, type SketchedSection } from "./device_sketch.ts";
import { FOOTER_BYTES } from "./device_state.ts";

/** Bytes that stood at a place of the state. */
interface Run {
  readonly at: number;
  readonly bytes: Uint8Array;
}

/**
 * Where one device state has its headers, footers and what is between sections, and what stood there.
 * Checkpoints follow each other in the same shape nearly always: one that has the same bytes in the
 * same places is a row of the same sections, and need not be told apart anew while the VM stands still.
 * (Measured: telling apart took a fifth of the sender's time.)
 */
export class DeviceLayout {
  #lengthBytes = -1;
  #runs: readonly Run[] = [];
  #sections: readonly SketchedSection[] = [];

  /**
   * Checks a state: quickly if it has the shape of the last one, else as `sketchDeviceState` does.
   *
   * @returns Its sections, the same array for the same shape; `undefined` where not all were found.
   * @throws {WireError} as that.
   */
  check(
    state: Uint8Array,
    known: Iterable<KnownSection>,
    streamOffset: number,
  ): readonly SketchedSection[] | undefined {
    if (this.fits(state)) return this.#sections;
    const { sections, isComplete } = sketchDeviceState(state, known, streamOffset);
    if (!isComplete) return undefined;
    this.remember(state, sections);
    return sections;
  }

  /**
   * Notes a state that was told apart, all of it.
   *
   * @param state Not kept.
   * @param sections In order, up to the EOF byte.
   */
  remember(state: Uint8Array, sections: readonly SketchedSection[]): void {
    const runs: Run[] = [];
    let from = 0;
    for (const { start, headerBytes, sizeBytes } of sections) {
      runs.push({ at: from, bytes: state.slice(from, start + headerBytes) });
      from = start + sizeBytes - FOOTER_BYTES;
    }
    runs.push({ at: from, bytes: state.slice(from) });
    this.#runs = runs;
    this.#lengthBytes = state.length;
    this.#sections = sections;
  }

  /** Whether a state has the shape of the one remembered. */
  fits(state: Uint8Array): boolean {
    if (state.length !== this.#lengthBytes) return false;
    for (const { at, bytes } of this.#runs) {
      for (let i = 0; i < bytes.length; i++) if (state[at + i] !== bytes[i]) return false;
    }
    return true;
  }
}
