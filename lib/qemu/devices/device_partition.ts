/**
 * Device state without a description, of a machine with `suppress-vmdesc=on`.
 *
 * The end of such a state must be known before: by the end of the input, by QEMU's report that it
 * is in COLO, or by a size on the wire. This file proves that the state is whole. It must consist
 * of sections from the first byte to the last, each with a header, and a footer with the same
 * section id; behind the footer another section begins, or the EOF byte.
 */
import { WireError, type WireFault } from "../../errors.ts";
import { isSectionOpening, mayGoOn, type SketchedSection, skipCommands } from "./device_sketch.ts";
import { decodeSectionHeader, FOOTER_BYTES, sectionLabel } from "./device_state.ts";
import { deviceKey } from "./vmdesc.ts";
import { SECTION } from "../wire.ts";

/** The most places at which a section may end, and steps between them, that are tried. */
const MAX_STEPS = 1_000_000;

/** A section whose end is being looked for. */
interface OpenSection {
  readonly start: number;
  /** One past each footer with its id; some may be before its payload. */
  readonly ends: readonly number[];
  /** The index of the next place to try. */
  next: number;
}

/**
 * Whether `state` ends as device state does: a footer (0x7e, `u32`), then EOF. Cheap; to be called
 * before {@link partitionDeviceState}.
 */
export function endsLikeDeviceState(state: Uint8Array): boolean {
  const last = state.length - 1;
  return last > FOOTER_BYTES && state[last] === SECTION.QEMU_VM_EOF &&
    state[last - FOOTER_BYTES] === SECTION.QEMU_VM_SECTION_FOOTER;
}

/**
 * Splits a whole device state into its sections.
 *
 * A payload may contain bytes that look like a footer with another section behind it. The first
 * place at which a section can end is tried first, and the next one if that leads nowhere.
 *
 * @param state From the first section's type byte up to and including EOF; not kept.
 * @param streamOffset Where `state` begins in the stream.
 * @throws {WireError} `truncated` if it does not end as device state does, or does not consist of
 *   whole sections up to its end; `bad-value` if two sections are of the same device; `too-large`
 *   if splitting would take too long; `unsupported` for an iterable section.
 */
export function partitionDeviceState(
  state: Uint8Array,
  streamOffset: number,
): SketchedSection[] {
  const eof = state.length - 1;
  if (!endsLikeDeviceState(state)) {
    throw fault(streamOffset + state.length, "truncated", "no section ends where the state ends");
  }
  const first = skipCommands(state, 0);
  const ends = findEnds(state, streamOffset);
  const path: OpenSection[] = [];
  const dead = new Set<number>();
  let steps = 0;
  /** The last place up to which the sections are clear, for the message. */
  let furthest = first;
  const open = (start: number) => {
    // A wrong step may lead to bytes that are no section; only the first section's fault is
    // reported.
    if (start > first && !isSectionOpening(state, start)) return false;
    const { sectionId, headerBytes } = decodeSectionHeader(state, start, streamOffset);
    const own = ends.get(sectionId) ?? [];
    path.push({ start, ends: own, next: firstFrom(own, start + headerBytes + FOOTER_BYTES) });
    furthest = Math.max(furthest, start);
    return true;
  };
  open(first);
  for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
    if (++steps > MAX_STEPS) throw tooMany(streamOffset + furthest);
    if (top.next === top.ends.length) {
      dead.add(top.start);
      path.pop();
      continue;
    }
    const next = skipCommands(state, top.ends[top.next++]);
    if (next === eof) return checkDevices(state, path, streamOffset);
    if (!dead.has(next) && !open(next)) dead.add(next);
  }
  throw fault(
    streamOffset + furthest,
    "truncated",
    "the section that begins here does not end before the state does",
  );
}

/** One past every footer that may close a section, by the section's id, in ascending order. */
function findEnds(state: Uint8Array, streamOffset: number): Map<number, number[]> {
  const view = new DataView(state.buffer, state.byteOffset, state.byteLength);
  const ends = new Map<number, number[]>();
  let count = 0;
  let footer = state.indexOf(SECTION.QEMU_VM_SECTION_FOOTER);
  for (; footer >= 0; footer = state.indexOf(SECTION.QEMU_VM_SECTION_FOOTER, footer + 1)) {
    const end = footer + FOOTER_BYTES;
    if (end >= state.length || !mayGoOn(state, end)) continue;
    if (++count > MAX_STEPS) throw tooMany(streamOffset + footer);
    const id = view.getUint32(footer + 1);
    const own = ends.get(id);
    if (own === undefined) ends.set(id, [end]);
    else own.push(end);
  }
  return ends;
}

/** Index of the first value that is not less than `least`. */
function firstFrom(ascending: readonly number[], least: number): number {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ascending[middle] < least) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The key of a device, which has only one section: names repeat, with other instance numbers. */
function checkDevices(
  state: Uint8Array,
  path: readonly OpenSection[],
  streamOffset: number,
): SketchedSection[] {
  const seen = new Set<string>();
  return path.map(({ start, ends, next }) => {
    const end = ends[next - 1];
    const header = decodeSectionHeader(state, start, streamOffset);
    const key = deviceKey(header.name, header.instance);
    if (seen.has(key)) {
      throw fault(
        streamOffset + start,
        "bad-value",
        `section ${sectionLabel(header)} is here a second time`,
      );
    }
    seen.add(key);
    return { ...header, start, sizeBytes: end - start };
  });
}

function tooMany(offset: number): WireError {
  return fault(offset, "too-large", "its sections cannot be told apart in reasonable time");
}

function fault(offset: number, kind: WireFault, what: string): WireError {
  return new WireError("migration", offset, kind, `device state without a description: ${what}`, {
    hint: "QEMU ended, or its migration was cancelled, while it sent the state",
  });
}
