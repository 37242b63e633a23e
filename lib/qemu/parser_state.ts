import type { DeviceLayout } from "./devices/device_layout.ts";
import type { KnownSection } from "./devices/device_sketch.ts";
import type { RamContext } from "./ram_parser.ts";

/**
 * Where the parser stands:
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
 * A machine with `suppress-vmdesc=on` sends no VMDESCRIPTION: `device` then ends when somebody says
 * so, or with the input.
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

/** Where a parser is, in words; of device state, how much of it has come. */
export function placeOf(state: ParserState, inCheckpoint: boolean, deviceBytes: number): string {
  if (state === "device" || state === "checkpoint-device") {
    return `device state (${deviceBytes} bytes so far)`;
  }
  return (inCheckpoint ? "a checkpoint, " : "") + PLACES[state];
}

/** What a later parser needs in order to go on with a COLO stream's checkpoints. */
export interface CheckpointContext {
  readonly ram: RamContext;
  readonly ramSectionId: number;
  /** The first pass's device sections, whose sizes help to check later ones. */
  readonly sections: readonly KnownSection[];
  /** The shape of the last checkpoint's device state; goes on with each. */
  readonly layout: DeviceLayout;
}

/** What may be assumed of the streams. */
export interface ParserConfig {
  /**
   * Whether a whole device state without a description ends where another stream, or a checkpoint,
   * follows it. Only for recordings: see `DeviceCollector.followed`.
   */
  readonly isRecording?: boolean;
  /** Whether to stop behind a list of RAM blocks: what follows may have to wait. */
  readonly stopsAtBlocks?: boolean;
}
