/**
 * `kemari inspect --json`: one document, written while the file is read.
 *
 * ```text
 * { "file": TEXT,
 *   "streams": [
 *     { "number": 1, "offset": 0,
 *       "sections": [ { "kind": …, "offset": …, "sizeBytes": …, "checkpoint"?: … , … } ],
 *       "kind": "plain"|"colo", "endOffset": …, "complete": BOOL, "checkpoints": …,
 *       "pageBytes": …, "ramBlocks": [ { "name", "lengthBytes", "pages", "zeroPages",
 *         "fillPages", "xbzrlePages", "distinctPages", "duplicatePages" } ] } ],
 *   "summary": { "bytes", "streams", "checkpoints", "pages", "zeroPages", "fillPages",
 *     "xbzrlePages", "distinctPages", "duplicatePages" },
 *   "fault": null | { "error", "exitCode", "message", "hint"?, "protocol"?, "offset"?, "fault"? } }
 * ```
 *
 * Sections are in the order of their bytes, one on each line; without a fault their sizes add up to
 * the file's. The kinds are those of `SectionFinding` in lib/qemu/stream_inspector.ts; a device has
 * its decoded `fields`: 64-bit integers are decimal strings, runs of bytes `{"hex", "lengthBytes",
 * "shortened"}`, structs have `fields` in place of a `value`.
 */
import { type KemariError, WireError } from "../../errors.ts";
import type { Inspection } from "../../host/inspect.ts";
import type { DeviceField, FieldValue } from "../../qemu/devices/device_fields.ts";
import type { FindingSink, SectionFinding, StreamSummary } from "../../qemu/stream_inspector.ts";
import { GatheredOutput } from "./gathered_output.ts";
import { RamTotals } from "./ram_totals.ts";

/** Writes the document; {@link end} completes it, also after a failure. */
export class InspectJson implements FindingSink {
  readonly #out: GatheredOutput;
  readonly #totals = new RamTotals();
  #hasSections = false;

  constructor(file: string, write: (text: string) => void) {
    this.#out = new GatheredOutput(write);
    this.#out.add(`{"file":${JSON.stringify(file)},"streams":[`);
  }

  beginStream(number: number, offset: number): void {
    this.#hasSections = false;
    const comma = number > 1 ? "," : "";
    this.#out.add(`${comma}\n{"number":${number},"offset":${offset},"sections":[`);
  }

  section(finding: SectionFinding): void {
    const comma = this.#hasSections ? "," : "";
    this.#hasSections = true;
    const section = finding.kind === "device"
      ? { ...finding, fields: Array.from(finding.fields(), fieldJson) }
      : finding;
    this.#out.add(`${comma}\n${JSON.stringify(section)}`);
  }

  endStream(summary: StreamSummary): void {
    const { kind, endOffset, complete, checkpoints, pageBytes, blocks } = summary;
    this.#totals.add(blocks);
    const rest = { kind, endOffset, complete, checkpoints, pageBytes, ramBlocks: blocks };
    this.#out.add(`\n],${JSON.stringify(rest).slice(1)}`);
  }

  end({ bytes, streams, checkpoints, failure }: Inspection): void {
    const summary = JSON.stringify({ bytes, streams, checkpoints, ...this.#totals.sums });
    const fault = JSON.stringify(failure === undefined ? null : faultJson(failure));
    this.#out.add(`\n],\n"summary":${summary},\n"fault":${fault}}\n`);
    this.#out.flush();
  }
}

function fieldJson({ value, ...field }: DeviceField): object {
  return isStruct(value)
    ? { ...field, fields: value.fields.map(fieldJson) }
    : { ...field, value: valueJson(value) };
}

function isStruct(value: FieldValue): value is Extract<FieldValue, { kind: "struct" }> {
  return typeof value === "object" && value !== null && "kind" in value && value.kind === "struct";
}

function valueJson(value: Exclude<FieldValue, { kind: "struct" }>): unknown {
  if (typeof value === "bigint") return value.toString();
  if (Array.isArray(value)) return value.map(valueJson);
  if (typeof value !== "object" || value === null || !("kind" in value)) return value;
  const { hex, lengthBytes, shortened } = value;
  return { hex, lengthBytes, shortened };
}

function faultJson(failure: KemariError): object {
  const { name, exitCode, message, hint } = failure;
  const where = failure instanceof WireError
    ? { protocol: failure.protocol, offset: failure.offset, fault: failure.fault }
    : {};
  return { error: name, exitCode, message, hint, ...where };
}
