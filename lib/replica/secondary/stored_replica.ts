import { Carry } from "../../bytes/carry.ts";
import type { VmIdentity } from "../../decisions/whose_replica.ts";
import { WireError } from "../../errors.ts";
import { sketchDeviceState } from "../../qemu/devices/device_sketch.ts";
import type { CheckpointContext } from "../../qemu/parser_state.ts";
import { StreamParser } from "../../qemu/stream_parser.ts";
import type { RamBlock } from "../../qemu/wire.ts";
import { composeWithoutPages } from "./compose_replica.ts";
import type { MachineShape } from "./machine_shape.ts";
import type { MachineRecord, PageStore } from "../pages/page_store.ts";
import type { SlotPool } from "../pages/slot_pool.ts";

/** A committed state that an earlier process has stored. */
export interface StoredReplica extends MachineRecord {
  readonly transaction: number;
  readonly blocks: readonly RamBlock[];
  readonly pageBytes: number;
  /** The VM, as far as known. */
  readonly vm?: VmIdentity;
  /** The names of the VM's disks in that state, as far as known. */
  readonly disks?: readonly string[];
  /** Opens the pages. */
  open(pool: SlotPool): PageStore;
}

/**
 * Reads the machine of a stored state. The device state may be a checkpoint's, which the stored
 * description need not fit; it is checked like a checkpoint's.
 *
 * @returns The machine's shape, and what a parser needs for the next checkpoint.
 * @throws {WireError} if QEMU would not load the state.
 */
export function recognizeMachine(
  stored: StoredReplica,
): { readonly shape: MachineShape; readonly uuid?: string; readonly context: CheckpointContext } {
  let machine = "unnamed";
  let uuid: string | undefined;
  const parser = new StreamParser({
    event: (event) => {
      if (event.kind === "configuration") ({ machine, uuid } = event.configuration);
    },
    page: () => {},
    mark: () => {},
  });
  const carry = new Carry();
  for (const piece of composeWithoutPages(stored)) {
    carry.feed(piece, 0, piece.length, (bytes, at, end) => parser.parse(bytes, at, end));
  }
  if (!parser.inDeviceState || parser.pageBytes !== stored.pageBytes) {
    throw new WireError("migration", 0, "truncated", "the stored state is not a whole machine");
  }
  const { sections } = sketchDeviceState(stored.device, [], 0);
  const shape = { machine, blocks: stored.blocks, sections };
  return { shape, uuid, context: { ...parser.checkpointContext, sections } };
}
