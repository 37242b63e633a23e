/** `kemari inspect` for people: a line a section, a table of the RAM blocks, a summary. */
import { WireError } from "../../errors.ts";
import type { Inspection } from "../../host/inspect.ts";
import type { DeviceField, FieldValue } from "../../qemu/devices/device_fields.ts";
import { pagesSent, type PageTally } from "../../qemu/page_census.ts";
import type {
  FindingSink,
  RamSection,
  SectionFinding,
  StreamSummary,
} from "../../qemu/stream_inspector.ts";
import { type Column, formatTable } from "../../report/text_table.ts";
import { GatheredOutput } from "./gathered_output.ts";
import { RamTotals } from "./ram_totals.ts";

/** Width of offsets: 10 GB are 11 digits. */
const OFFSET_WIDTH = 12;
const SIZE_WIDTH = 11;
/** The column where a section's text begins. */
const INDENT = " ".repeat(OFFSET_WIDTH + SIZE_WIDTH + 4);

const BLOCK_COLUMNS: readonly Column[] = [
  { title: "  RAM block" },
  ...["bytes", "pages", "zero", "filled", "xbzrle", "distinct", "duplicate"].map((title) => {
    return { title, align: "right" } as const;
  }),
];

/** Writes the report as the findings come. */
export class InspectText implements FindingSink {
  readonly #out: GatheredOutput;
  readonly #showsFields: boolean;
  readonly #totals = new RamTotals();
  #checkpoint = 0;

  constructor(write: (text: string) => void, showsFields: boolean) {
    this.#out = new GatheredOutput(write);
    this.#showsFields = showsFields;
  }

  beginStream(number: number, offset: number): void {
    this.#checkpoint = 0;
    if (number > 1) this.#line("");
    this.#line(`stream ${number}, from offset ${offset}`);
    this.#line(`${"offset".padStart(OFFSET_WIDTH)}  ${"bytes".padStart(SIZE_WIDTH)}  section`);
  }

  section(finding: SectionFinding): void {
    if (finding.checkpoint !== undefined && finding.checkpoint !== this.#checkpoint) {
      this.#checkpoint = finding.checkpoint;
      this.#line(`${INDENT.slice(0, -2)}-- checkpoint ${finding.checkpoint}`);
    }
    const offset = String(finding.offset).padStart(OFFSET_WIDTH);
    const size = String(finding.sizeBytes).padStart(SIZE_WIDTH);
    this.#line(`${offset}  ${size}  ${describe(finding)}`);
    if (finding.kind !== "device" || !this.#showsFields) return;
    for (const field of finding.fields()) this.#field(field, INDENT);
  }

  endStream(summary: StreamSummary): void {
    this.#totals.add(summary.blocks);
    if (summary.blocks.length > 0) {
      this.#line("");
      const rows = summary.blocks.map((block) => [
        `  ${printable(block.name)}`,
        ...[
          block.lengthBytes,
          block.pages,
          block.zeroPages,
          block.fillPages,
          block.xbzrlePages,
          block.distinctPages,
          block.duplicatePages,
        ].map(String),
      ]);
      for (const line of formatTable(BLOCK_COLUMNS, rows)) this.#line(line);
      this.#line(`  pages are of ${summary.pageBytes} bytes; duplicates were sent before`);
    }
    if (!summary.complete) this.#line(`stream ${summary.number} is incomplete`);
  }

  end({ bytes, streams, checkpoints, failure }: Inspection): void {
    const { distinctPages, duplicatePages, ...sent } = this.#totals.sums;
    if (streams > 0) this.#line("");
    const what = [
      count(streams, "stream"),
      count(checkpoints, "checkpoint"),
      `${count(bytes, "byte")} read`,
      pagesText(sent),
      `${distinctPages} distinct`,
      count(duplicatePages, "duplicate"),
    ];
    const end = failure === undefined
      ? ""
      : failure instanceof WireError
      ? `; fault at offset ${failure.offset} (${failure.fault})`
      : "; broken off";
    this.#line(what.join(", ") + end);
    this.#out.flush();
  }

  #field(field: DeviceField, indent: string): void {
    const index = field.index === undefined ? "" : `[${field.index}]`;
    const name = printable(field.name) + index;
    if (isStruct(field.value)) {
      this.#line(`${indent}${field.type === "subsection" ? "subsection " : ""}${name}:`);
      for (const inner of field.value.fields) this.#field(inner, indent + "  ");
    } else {
      this.#line(`${indent}${name} (${printable(field.type)}): ${valueText(field.value)}`);
    }
  }

  #line(text: string): void {
    this.#out.add(text + "\n");
  }
}

function describe(finding: SectionFinding): string {
  switch (finding.kind) {
    case "header":
      return `header, version ${finding.version}`;
    case "configuration": {
      const { machine, targetPageBits, capabilities } = finding;
      const parts = [`CONFIGURATION, machine ${printable(machine)}`];
      if (targetPageBits !== null) parts.push(`pages of 2^${targetPageBits} bytes`);
      if (capabilities.length > 0) parts.push(`capabilities ${capabilities.join(", ")}`);
      return parts.join(", ");
    }
    case "command":
      return `COMMAND ${finding.name}${finding.dataHex === "" ? "" : `, data ${finding.dataHex}`}`;
    case "ram":
      return describeRam(finding);
    case "device": {
      const { name, instance, version, sectionId } = finding;
      return `device ${printable(name)}, instance ${instance}, version ${version}, id ${sectionId}`;
    }
    case "device-state": {
      const names = finding.devices.map(printable).join(", ");
      return `device state without a description that fits: ${names}` +
        (finding.complete ? "" : " and others that cannot be told apart");
    }
    case "eof":
      return "EOF";
    case "vmdescription":
      return `VMDESCRIPTION of ${count(finding.devices, "device")}`;
    case "colo":
      return `COLO ${finding.message}` +
        (finding.stateBytes === null ? "" : `, ${count(finding.stateBytes, "byte")}`);
    case "unfinished":
      return `unfinished: ${finding.place}`;
  }
}

function describeRam(section: RamSection): string {
  const { part, sectionId, blocks, xbzrleBytes, marks } = section;
  const parts = [part === null ? "unfinished: ram" : `ram ${part}, id ${sectionId}`];
  if (blocks !== undefined) parts.push(count(blocks.length, "block"));
  if (pagesSent(section) > 0) parts.push(pagesText(section));
  if (xbzrleBytes > 0) parts.push(`${count(xbzrleBytes, "byte")} of differences`);
  if (marks > 0) parts.push(count(marks, "mark"));
  return parts.join(", ");
}

/** `12 pages + 300 zero + 4 xbzrle`, without kinds that do not occur. */
function pagesText(tally: Readonly<PageTally>): string {
  const parts = [count(tally.pages, "page")];
  if (tally.zeroPages > 0) parts.push(`${tally.zeroPages} zero`);
  if (tally.fillPages > 0) parts.push(`${tally.fillPages} filled`);
  if (tally.xbzrlePages > 0) parts.push(`${tally.xbzrlePages} xbzrle`);
  return parts.join(" + ");
}

function isStruct(value: FieldValue): value is Extract<FieldValue, { kind: "struct" }> {
  return typeof value === "object" && value !== null && "kind" in value && value.kind === "struct";
}

function valueText(value: Exclude<FieldValue, { kind: "struct" }>): string {
  if (value === null) return "not set";
  if (Array.isArray(value)) return `[${value.join(", ")}]`;
  if (typeof value !== "object" || !("kind" in value)) return String(value);
  return value.shortened ? `${value.hex}… (${count(value.lengthBytes, "byte")})` : value.hex;
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** Names come from the file: nothing in them may reach the terminal as a command. */
function printable(text: string): string {
  return text.replaceAll(
    /\p{Cc}/gu,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
}
