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

/** In words, for messages; device state says how much of it has come. */
export const PLACES = {
  header: "the stream's header",
  sections: "the place between sections",
  ram: "a ram section",
  footer: "a section's footer",
  size: "VMSTATE_SIZE",
  between: "the place between streams",
} as const;
