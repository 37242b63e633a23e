/**
 * Device state that nobody describes: of a machine with `suppress-vmdesc=on`.
 *
 * Where such a state ends must be known before: from the end of its input, from QEMU's own word that
 * it is in COLO, or from a size on the wire. What is proven here is that it is a whole one. It must
 * be sections from its first byte to its last, each with a header, and a footer of the same section
 * id behind which another section begins, and an EOF byte behind the last.
 */
import { WireError, type WireFault } from "../../errors.ts";
import { isSectionOpening, mayGoOn, type SketchedSection, skipCommands } from "./device_sketch.ts";
import { decodeSectionHeader, FOOTER_BYTES, sectionLabel } from "./device_state.ts";
import { deviceKey } from "./vmdesc.ts";
import { SECTION } from "../wire.ts";

/** Places at which a section may end, and ways from one to another, that are looked at. */
const MAX_STEPS = 1_000_000;

/** A section whose end is being looked for. */
interface OpenSection {
  readonly start: number;
  /** One past each footer that may close it, and those before its first byte of payload. */
  readonly ends: readonly number[];
  /** Index of the next one to be tried. */
  next: number;
}

/**
 * Whether `state` ends as device state does: a footer (0x7e, `u32`), then EOF. Cheap; to be asked
 * before {@link partitionDeviceState}.
 */
export function endsLikeDeviceState(state: Uint8Array): boolean {
  const last = state.length - 1;
  return last > FOOTER_BYTES && state[last] === SECTION.QEMU_VM_EOF &&
    state[last - FOOTER_BYTES] === SECTION.QEMU_VM_SECTION_FOOTER;
}

/**
 * Tells the sections of a whole device state apart.
 *
 * A payload may hold what looks like a footer with another section behind it. The first place at
 * which a section can end is tried first, and given up for the next one where it leads nowhere.
 *
 * @param state From the first section's type byte up to and including EOF; not kept.
 * @param streamOffset Where `state` begins in the stream.
 * @throws {WireError} `truncated` if it does not end as device state does, or is no row of whole
 *   sections up to its end; `bad-value` if two sections are of the same device; `too-large` if it is
 *   made so that it takes too long to tell; `unsupported` for an iterable section.
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
  /** How far it can be understood, for the message. */
  let furthest = first;
  const open = (start: number) => {
    // A wrong turn may lead to what is no section; what stands first is one, or is said to be none.
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

/** One device has one section: names repeat, with instance numbers. */
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
        `section ${sectionLabel(header)} stands here a second time`,
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
