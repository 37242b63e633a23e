/**
 * The notes beside a replica's RAM files, as text. A note that was read is checked before it is
 * used.
 */
import type { VmIdentity } from "../../decisions/whose_replica.ts";
import type { RamBlock } from "../../qemu/wire.ts";
import { LIMITS } from "../../qemu/wire.ts";

/** The content of `state`. */
export interface StateMark {
  /** `given`: a VM runs on the files, or has run on them. */
  readonly phase: "applying" | "whole" | "given";
  /** The host's boot in which the note was written. */
  readonly bootId: string;
  readonly transaction: number;
  /** The folder of the RAM's files. */
  readonly generation: number;
  readonly machineFile: number;
  readonly configurationBytes: number;
  readonly vmdescriptionBytes: number;
  /** Which of the two device states is the current one. */
  readonly device: number;
  readonly deviceBytes: number;
  /** The VM; absent in notes of an earlier version. */
  readonly vm?: VmIdentity;
  /** The disks that went with it; absent from an earlier version's. */
  readonly disks?: readonly string[];
}

/** The content of `layout`. */
export interface Layout {
  readonly pageBytes: number;
  readonly blocks: readonly RamBlock[];
}

const COUNTS = [
  "transaction",
  "generation",
  "machineFile",
  "configurationBytes",
  "vmdescriptionBytes",
  "device",
  "deviceBytes",
] as const;

const VM_KEYS = new Set(["uuid", "name", "process", "shape"]);

function isVm(value: unknown): value is VmIdentity {
  return typeof value === "object" && value !== null &&
    Object.entries(value).every(([key, text]) => VM_KEYS.has(key) && typeof text === "string");
}

/** Reads a VM's identity. @throws {Error} if kemari did not write it. */
export function decodeVmNote(text: string): VmIdentity {
  const vm: unknown = JSON.parse(text);
  if (!isVm(vm)) throw new Error("no VM");
  return vm;
}

/**
 * Reads `state`.
 *
 * @returns `undefined` for an empty file: there is no replica.
 * @throws {Error} if kemari did not write it.
 */
export function decodeState(text: string): StateMark | undefined {
  if (text.trim() === "") return undefined;
  const mark = JSON.parse(text) as StateMark;
  const known = ["applying", "whole", "given"].includes(mark.phase);
  const counted = COUNTS.every((name) => Number.isSafeInteger(mark[name]) && mark[name] >= 0);
  const disks: unknown = mark.disks ?? [];
  const named = isVm(mark.vm ?? {}) && Array.isArray(disks) &&
    disks.every((name) => typeof name === "string");
  if (!known || !counted || !named || typeof mark.bootId !== "string" || mark.device > 1) {
    throw new Error("state is damaged");
  }
  return mark;
}

export function encodeLayout(layout: Layout): string {
  return JSON.stringify(layout) + "\n";
}

/** Reads `layout`. @throws {Error} if kemari did not write it. */
export function decodeLayout(text: string): Layout {
  const { pageBytes, blocks } = JSON.parse(text) as Layout;
  const isPower = Number.isSafeInteger(pageBytes) && pageBytes >= 512 && pageBytes <= 65536 &&
    (pageBytes & (pageBytes - 1)) === 0;
  const usable = isPower && Array.isArray(blocks) && blocks.length <= LIMITS.blocks &&
    blocks.every(({ name, lengthBytes }) =>
      typeof name === "string" && name !== "" && Number.isSafeInteger(lengthBytes) &&
      lengthBytes > 0 && lengthBytes % pageBytes === 0 && lengthBytes <= LIMITS.ramBytes
    );
  if (!usable) throw new Error("layout is damaged");
  return { pageBytes, blocks: blocks.map(({ name, lengthBytes }) => ({ name, lengthBytes })) };
}
