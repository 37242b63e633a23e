/** For tests: bytes that a parser must refuse, and the offset of the fault. */
import assert from "node:assert/strict";
import { WireError, type WireFault, type WireProtocol } from "../../errors.ts";
import { StreamParser } from "../stream_parser.ts";
import {
  concat,
  configuration,
  FoundLog,
  HEADER,
  name,
  type Part,
  u32,
} from "./synthetic_stream.ts";
import { SECTION } from "../wire.ts";

/** Parses as far as the bytes go. */
export function parse(stream: Uint8Array, log = new FoundLog()): StreamParser {
  const parser = new StreamParser(log);
  for (let at = 0, next; at < stream.length; at = next) {
    next = parser.parse(stream, at, stream.length);
    if (next === at) break;
  }
  return parser;
}

export interface FaultCase {
  readonly of: string;
  /** Good bytes, then bad ones: the error must name the first bad byte. */
  readonly good: readonly Part[];
  readonly bad: readonly Part[];
  readonly fault: WireFault;
  readonly message: RegExp;
  readonly protocol?: WireProtocol;
  /** Of the faulty byte, counted from the end of `good`; 0 if left out. */
  readonly at?: number;
}

export const CONFIGURED: readonly Part[] = [HEADER, configuration()];
export const RAM_OPEN: readonly Part[] = [
  [SECTION.QEMU_VM_SECTION_START, u32(2), name("ram"), u32(0), u32(4)],
];

/** Checks one case: the good part parses, and the error names the faulty byte behind it. */
export function expectFault(
  { good, bad, fault, message, protocol = "migration", at = 0 }: FaultCase,
): void {
  const before = concat(...good);
  parse(before);
  assert.throws(() => parse(concat(before, ...bad)), (error) => {
    assert.ok(error instanceof WireError, `${error}`);
    assert.match(error.message, message);
    assert.deepEqual(
      [error.protocol, error.fault, error.offset],
      [protocol, fault, before.length + at],
    );
    return true;
  });
}
