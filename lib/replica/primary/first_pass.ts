import { WireError } from "../../errors.ts";
import {
  type DeviceSection,
  FOOTER_BYTES,
  sectionHeaderBytes,
  type SectionName,
} from "../../qemu/devices/device_state.ts";
import type { StreamParser } from "../../qemu/stream_parser.ts";
import type { PrimaryConfig } from "./primary_config.ts";
import type { QemuDialogue } from "./qemu_dialogue.ts";

/**
 * How long a QEMU that describes nothing must send nothing after a whole state, before that counts
 * as the complete state. QEMU writes its state in one go; the VM stands still for this time, once
 * for each session.
 */
const SILENCE_MS = 500;
/** How long a QEMU may send nothing in the middle of its device state before that is logged. */
const STUCK_MS = 10_000;

/**
 * The end of a full state that may come without a description (`suppress-vmdesc=on`), while QEMU
 * waits behind it for an answer and its channel stays open.
 *
 * ```text
 *             VMDESCRIPTION
 * open ──────────────────────────────────────────────────────► over
 *   ├──enteredColo()──► told ──found empty, a whole state─────► over
 *   │                     └─────found empty, anything else────► WireError
 *   └──silent for SILENCE_MS, found empty, a whole state──────► over   (not where QEMU tells by QMP)
 * ```
 *
 * {@link Primary} reports when bytes came ({@link heard}). The reader of the channel looks into it
 * when that is wanted ({@link wantsLook}: the reader may have stood still itself while QEMU went
 * on), and reports that nothing was there ({@link foundEmpty}).
 */
export class FirstPass {
  readonly #parser: StreamParser;
  readonly #dialogue: QemuDialogue;
  readonly #config: PrimaryConfig;
  #heardAt: number;
  /** When the channel was last found empty while the state was not whole. */
  #lookedAt = -Infinity;
  #told = false;
  #isOver = false;
  #stuckTold = false;
  #sections: readonly SectionName[] | undefined;
  #fieldsOf: (name: string) => Uint8Array | undefined = () => undefined;

  constructor(
    parser: StreamParser,
    dialogue: QemuDialogue,
    config: PrimaryConfig,
    now: number,
  ) {
    this.#parser = parser;
    this.#dialogue = dialogue;
    this.#config = config;
    this.#heardAt = now;
  }

  /** Another channel is read from now on. */
  begin(now: number): void {
    this.#told = false;
    this.#isOver = false;
    this.#stuckTold = false;
    this.heard(now);
  }

  /** Bytes of the stream came. */
  heard(now: number): void {
    this.#heardAt = now;
  }

  /** The first bytes of a stream have come; several streams may follow each other on a channel. */
  opened(): void {
    this.#isOver = false;
  }

  /** The parser has found the device state: a device's fields are available from now on. */
  keep(state: Uint8Array, sections: readonly DeviceSection[], offset: number): void {
    this.#sections = sections;
    this.#fieldsOf = (name) => {
      const section = sections.find((each) => each.name === name);
      if (section === undefined) return undefined;
      const start = section.offset - offset;
      const end = start + section.sizeBytes - FOOTER_BYTES;
      return state.subarray(start + sectionHeaderBytes(section.name.length), end);
    };
  }

  /** The last full state's sections; `undefined` before the first. */
  get sections(): readonly SectionName[] | undefined {
    return this.#sections;
  }

  /**
   * A device's fields in the last full state, without the section's header and footer.
   *
   * @returns A view; `undefined` if there is no such device, or no state yet.
   */
  fieldsOf(name: string): Uint8Array | undefined {
    return this.#fieldsOf(name);
  }

  /** The parser has found the state's end: later bytes do not belong to it. */
  completed(): void {
    this.#isOver = true;
  }

  /** QEMU has said over QMP that it is in COLO: it has written its whole first pass by now. */
  enteredColo(): void {
    this.#told = true;
  }

  /** Whether the reader is to check if the channel is empty. */
  wantsLook(now: number): boolean {
    if (this.#isOver) return false;
    if (this.#told) return true;
    const since = Math.max(this.#heardAt, this.#lookedAt);
    return this.#awaitsSilence && now - since >= SILENCE_MS;
  }

  /**
   * The channel was read, and nothing was there.
   *
   * @param unparsedBytes How many bytes came before that the parser has not taken.
   * @throws {WireError} if QEMU is in COLO, and has not sent a whole first pass.
   */
  foundEmpty(unparsedBytes: number, now: number): void {
    if (!this.wantsLook(now)) return;
    const mayEnd = unparsedBytes === 0 && this.#parser.mayEndHere;
    if (mayEnd || this.#told && this.#parser.inDeviceState) return this.#parser.endState();
    this.#lookedAt = now;
    if (!this.#told) return;
    throw new WireError(
      "migration",
      this.#parser.streamOffset + unparsedBytes,
      "truncated",
      `QEMU is in COLO, and its first pass has come only as far as ${this.#parser.place}`,
    );
  }

  /**
   * How long QEMU has sent nothing in the middle of its device state, in milliseconds, if that is
   * long and was not reported before.
   */
  takeStuckMs(now: number): number | undefined {
    const silentMs = now - this.#heardAt;
    if (this.#stuckTold || !this.#parser.inDeviceState || silentMs < STUCK_MS) return undefined;
    this.#stuckTold = true;
    return silentMs;
  }

  get #awaitsSilence(): boolean {
    return this.#config.firstPassEnd !== "told" && this.#parser.inDeviceState &&
      this.#dialogue.isAwaited;
  }
}
