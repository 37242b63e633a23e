/** For tests: the tables in docs/PROTOCOL.md that say what `frame_rules.ts` says. */
import {
  type End,
  FRAME_RULES,
  type FrameName,
  type SequenceRule,
  type TransactionRule,
} from "../frame_rules.ts";
import { FEATURE, type FeatureName, featureWord, OFFERED_FEATURES } from "../hello.ts";
import { TXN } from "../wire.ts";

/** What a frame's payload is, in a few words. */
const PAYLOADS: Readonly<Record<FrameName, string>> = {
  HELLO: "see HELLO",
  BEGIN: "none",
  CONTINUE: "the next bytes of the stream",
  COMMIT: "u32 CRC-32, u64 bytes",
  CANCEL: "none",
  ACK: "none",
  NACK: "u16 reason, UTF-8 text",
  EVENT: "an event, see EVENT",
  RELEASED: "none",
  HEARTBEAT: "none",
  HANDOVER: "none",
  DIGEST_QUERY: "u32 low half of a seed, u32 high half",
  DIGEST: "runs of page digests, see Digests",
  PACKED: "CONTINUE and EVENT frames, compressed",
  LEAVE: "u8 reason, UTF-8 text",
  LEFT: "none",
  DISK_QUERY: "see Digests of disks",
  DISK_DIGEST: "digests of chunks, see Digests of disks",
  INPUT: "`u8 n, n bytes name of the tap`, a frame",
};

const SEQUENCES: Readonly<Record<SequenceRule, string>> = { zero: "0", counted: "counted" };

const TRANSACTIONS: Readonly<Record<TransactionRule, string>> = {
  none: "0",
  next: "the last + 1",
  open: "the open one",
  acknowledged: "1 to the last acknowledged",
  last: "the last, acknowledged in this session",
  oldest: "the oldest without ACK",
  some: "not 0",
  refused: "the one refused, or 0",
};

/** Names of flags, by their frames and values. */
const FLAGS: Readonly<Partial<Record<FrameName, Readonly<Record<number, string>>>>> = {
  BEGIN: { 1: "FULL", 3: "FULL and BASED" },
  DIGEST: { 1: "LAST" },
  DISK_DIGEST: { 1: "LAST" },
};

const NAMES = Object.keys(TXN) as FrameName[];
const ENDS: readonly End[] = ["sender", "receiver"];

const count = (value: number) => value.toLocaleString("en-US");
const states = (list: readonly string[] = []) => list.join(", ");
const hex = (value: number) => `0x${value.toString(16).padStart(2, "0")}`;

/** Every frame's header and payload. */
export function frameTable(): string[][] {
  const rows = NAMES.map((name) => {
    const { bytes: [least, most], flags, sequence, transaction, needs, payloadNeeds, sentIn } =
      FRAME_RULES[name];
    const senders = ENDS.filter((end) => sentIn[end] !== undefined);
    const bits = flags.filter((value) => value !== 0);
    const need = needs ?? payloadNeeds;
    return [
      `${TXN[name]}`,
      name,
      senders.length === 2 ? "both" : senders[0],
      PAYLOADS[name],
      least === most ? count(most) : `${count(least)} to ${count(most)}`,
      bits.map((value) => `${FLAGS[name]![value]} ${hex(value)}`).join(", "),
      SEQUENCES[sequence],
      TRANSACTIONS[transaction],
      need === undefined ? "" : `\`${featureWord(need)}\`${needs ? "" : ", or else no payload"}`,
    ];
  });
  return [
    [
      ...["code", "command", "from", "payload", "bytes", "flags", "sequence", "transaction"],
      "needs",
    ],
    ["---:", "---", "---", "---", "---:", "---", "---", "---", "---"],
    ...rows,
  ];
}

/** In which states a frame is sent and taken, and what else a NACK may say of it. */
export function placeTable(): string[][] {
  const rows = NAMES.flatMap((name) => {
    const { sentIn, takenIn, answers, nacks } = FRAME_RULES[name];
    return ENDS.filter((end) => sentIn[end] !== undefined).map((from) => {
      const to = from === "sender" ? "receiver" : "sender";
      return [
        name,
        from,
        states(sentIn[from]),
        states(takenIn[to]),
        (answers ?? []).join(", "),
        to === "receiver"
          ? ["protocol", ...nacks ?? []].map((each) => `\`${each}\``).join(", ")
          : "",
      ];
    });
  });
  return [
    ["command", "from", "sent in", "taken in", "answers", "a breach gets NACK"],
    ["---", "---", "---", "---", "---", "---"],
    ...rows,
  ];
}

/** What an end offers, in a few words. */
const OFFERS: Readonly<Record<FeatureName, string>> = {
  digests: "DIGEST_QUERY is answered",
  events: "EVENT is taken, and RELEASED understood",
  packed: "PACKED is taken",
  diskDigests: "DISK_QUERY is answered",
  inputs: "INPUT is taken",
  farewell: "LEAVE has a payload, and is answered by LEFT",
  storesPages: "pages of a FULL transaction without BASED are not bounded by max transaction",
};

/** What is offered in HELLO. */
export function featureTable(): string[][] {
  const rows = (Object.keys(FEATURE) as FeatureName[]).map((name) => {
    const frames = NAMES.filter((frame) => FRAME_RULES[frame].needs === name);
    const payloads = NAMES.filter((frame) => FRAME_RULES[frame].payloadNeeds === name);
    return [
      `${Math.log2(FEATURE[name])}`,
      `\`${featureWord(name)}\``,
      (FEATURE[name] & OFFERED_FEATURES) !== 0 ? "both" : "receiver",
      OFFERS[name],
      [...frames, ...payloads.map((frame) => `${frame}'s payload`)].join(", "),
    ];
  });
  return [
    ["bit", "feature", "offered by", "it says that", "needed by"],
    ["---:", "---", "---", "---", "---"],
    ...rows,
  ];
}

/** A table as Markdown; `deno fmt` gives it its widths. */
export function markdown(table: readonly (readonly string[])[]): string {
  return table.map((cells) => `| ${cells.join(" | ")} |\n`).join("");
}

/** The cells of a Markdown table, whatever its widths. */
export function cellsOf(text: string): string[][] {
  return text.trim().split("\n").map((row) =>
    row.split("|").slice(1, -1).map((cell) => cell.trim().replace(/^(:?)-+(:?)$/, "$1---$2"))
  );
}
