import type { DeviceLayout } from "./devices/device_layout.ts";
import type { KnownSection } from "./devices/device_sketch.ts";
import type { RamContext } from "./ram_parser.ts";

/**
 * The parser's place in the stream:
 *
 * ```text
 *                       CONFIGURATION, COMMAND
 *                          ┌──┐
 * header ──"QEVM"──► sections ──START/PART/END──► ram ──EOS──► footer ──► sections
 *   ▲                    │                                                   │
 *   │                    ├──FULL──► device ──EOF, VMDESCRIPTION──► between ◄─┼──────────────┐
 *   │                    └──EOF (checkpoint)──► size ──► checkpoint-device ──┼──────────────┤
 *   └─────────"QEVM"─────────────────────────── between ──VMSTATE_SEND───────┘ (checkpoint) │
 *                                                  └────────other COLO message──────────────┘
 * ```
 *
 * A machine with `suppress-vmdesc=on` sends no VMDESCRIPTION: `device` then ends by a call, or with
 * the input.
 */
export type ParserState =
  | "header"
  | "sections"
  | "ram"
  | "footer"
  | "device"
  | "between"
  | "size"
  | "checkpoint-device";

/** In words, for messages. */
const PLACES = {
  header: "the stream's header",
  sections: "the place between sections",
  ram: "a ram section",
  footer: "a section's footer",
  size: "VMSTATE_SIZE",
  between: "the place between streams",
} as const;

/** A parser's place in words; in device state, with the number of bytes so far. */
export function placeOf(state: ParserState, inCheckpoint: boolean, deviceBytes: number): string {
  if (state === "device" || state === "checkpoint-device") {
    return `device state (${deviceBytes} bytes so far)`;
  }
  return (inCheckpoint ? "a checkpoint, " : "") + PLACES[state];
}

/** What another parser needs to go on with a COLO stream's checkpoints. */
export interface CheckpointContext {
  readonly ram: RamContext;
  readonly ramSectionId: number;
  /** The first pass's device sections, whose sizes help to check later ones. */
  readonly sections: readonly KnownSection[];
  /** The layout of the last checkpoint's device state, updated with each. */
  readonly layout: DeviceLayout;
}

/** What the parser may assume about the streams. */
export interface ParserConfig {
  /**
   * Whether a whole device state without a description ends if another stream or a checkpoint
   * follows. Only for recordings: see `DeviceCollector.followed`.
   */
  readonly isRecording?: boolean;
  /** Whether to stop after a list of RAM blocks: the rest may have to wait. */
  readonly stopsAtBlocks?: boolean;
}
