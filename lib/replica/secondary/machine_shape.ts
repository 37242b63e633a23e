/**
 * A machine's shape: what a QEMU must have to load a state, that is the machine type, its RAM
 * blocks, and a device for every section. If a device is plugged between two sessions, or between
 * two snapshots, the shape changes, and the secondary's QEMU, which was started before, does not
 * have that device.
 */
import type { SectionName } from "../../qemu/devices/device_state.ts";
import type { RamBlock } from "../../qemu/wire.ts";

/** A state's shape. If two shapes are the same object, they are equal. */
export interface MachineShape {
  readonly machine: string;
  readonly blocks: readonly RamBlock[];
  readonly sections: readonly SectionName[];
}

/** The difference of two shapes, by QEMU's own names, in the order of the states. */
interface ShapeChange {
  /** Devices and RAM that are new. */
  readonly added: readonly string[];
  readonly removed: readonly string[];
  /** The same device in another version, RAM of another size, another machine. */
  readonly altered: readonly string[];
}

/** Compares two shapes; `undefined` if they are equal. A load does not depend on the order. */
export function compareShapes(before: MachineShape, now: MachineShape): ShapeChange | undefined {
  if (before === now) return undefined;
  const [old, current] = [partsOf(before), partsOf(now)];
  const added = [...current.keys()].filter((name) => !old.has(name));
  const removed = [...old.keys()].filter((name) => !current.has(name));
  const altered = [...current].flatMap(([name, value]) => {
    const was = old.get(name);
    return was === undefined || was === value ? [] : [`${name} (${was}, now ${value})`];
  });
  if (added.length + removed.length + altered.length === 0) return undefined;
  return { added, removed, altered };
}

/** In words, for a message: `0000:00:05.0/virtio-rng has come`. */
export function describeChange({ added, removed, altered }: ShapeChange): string {
  const list = (names: readonly string[], what: string) =>
    names.length === 0 ? [] : [`${names.slice(0, NAMED).join(", ")}${more(names)} ${what}`];
  return [
    ...list(added, added.length === 1 ? "has come" : "have come"),
    ...list(removed, removed.length === 1 ? "has gone" : "have gone"),
    ...list(altered, altered.length === 1 ? "has changed" : "have changed"),
  ].join("; ");
}

/** What to do with a transaction that is complete and not yet committed. */
export type ShapeVerdict =
  /** Commit: it loads where the last one did. */
  | { readonly kind: "commit" }
  /** Rehearse: acknowledge nothing before a standby has loaded it. */
  | { readonly kind: "rehearse"; readonly change: ShapeChange | undefined }
  /** Warn: it cannot be tried, and the QEMU that takes the VM over must have what is named. */
  | { readonly kind: "warn"; readonly change: ShapeChange };

/**
 * Decides by the shape alone whether a transaction may be committed.
 *
 * Why that is safe: an acknowledged state either has the shape of a state that the standby has
 * loaded, or is loaded by it first. A load depends on values as well, but no value keeps it from
 * finding a device.
 *
 * @param loads The shape that is known to load, or, without a standby, the shape committed last.
 * @param canRehearse Whether there is a standby that can load device state alone.
 */
export function judgeShape(
  loads: MachineShape | undefined,
  staged: MachineShape,
  canRehearse: boolean,
): ShapeVerdict {
  if (loads === undefined) {
    return canRehearse ? { kind: "rehearse", change: undefined } : { kind: "commit" };
  }
  const change = compareShapes(loads, staged);
  if (change === undefined) return { kind: "commit" };
  return { kind: canRehearse ? "rehearse" : "warn", change };
}

/**
 * Finds the shape of each transaction. If the shape has not changed, it is the same object as the
 * last committed one, and for nearly all checkpoints that is known without a comparison: a VM that
 * stands still must not wait for more.
 */
export class ShapeReader {
  #last: MachineShape | undefined;
  #isFull = true;
  /** A list that was found to equal the last shape's, though it is another object. */
  #alsoLast: readonly SectionName[] | undefined;
  #shape: MachineShape | undefined;
  machine = UNNAMED;
  /** The sections found in this transaction; `undefined` if those of the last shape are used. */
  sections: readonly SectionName[] | undefined;

  /** A transaction begins; the last one had this shape. */
  begin(last: MachineShape | undefined, isFull: boolean): void {
    if (last !== this.#last) this.#alsoLast = undefined;
    this.#last = last;
    this.#isFull = isFull;
    this.sections = undefined;
    this.#shape = undefined;
    // A stream without CONFIGURATION has no machine name, whatever was committed before.
    this.machine = isFull ? UNNAMED : last!.machine;
  }

  /** The transaction's shape, when all of it has come. */
  read(blocks: readonly RamBlock[]): MachineShape {
    return this.#shape ??= this.#read(blocks);
  }

  #read(blocks: readonly RamBlock[]): MachineShape {
    const last = this.#last;
    const { machine, sections } = this;
    if (!this.#isFull && (sections === undefined || sections === this.#alsoLast)) return last!;
    const named = sections!.map(({ name, instance, version }) => ({ name, instance, version }));
    const shape = { machine, blocks, sections: named };
    if (last === undefined || compareShapes(last, shape) !== undefined) return shape;
    this.#alsoLast = sections;
    return last;
  }
}

const UNNAMED = "unnamed";

/** How many devices a message names. */
const NAMED = 8;

function more(names: readonly string[]): string {
  return names.length > NAMED ? ` and ${names.length - NAMED} more` : "";
}

function partsOf({ machine, blocks, sections }: MachineShape): Map<string, string> {
  const parts = new Map([["machine", machine]]);
  for (const { name, lengthBytes } of blocks) parts.set(`RAM ${name}`, `${lengthBytes} bytes`);
  for (const { name, instance, version } of sections) {
    parts.set(instance === 0 ? name : `${name} ${instance}`, `version ${version}`);
  }
  return parts;
}
