import type { CheckpointContext } from "../../qemu/parser_state.ts";
import type { MachineShape } from "./machine_shape.ts";
import type { MachineRecord } from "../pages/page_store.ts";

/** What a stream brings beside pages and shape. */
export type StagedState = MachineRecord & Pick<MachineState, "uuid">;

/** A VM's state as of a committed transaction, all but the RAM. */
export interface MachineState extends MachineRecord {
  readonly uuid?: string;
  readonly shape: MachineShape;
  readonly context: CheckpointContext;
}

/** What a transaction brought. */
export interface TransactionSize {
  readonly pages: number;
  readonly zeroPages: number;
  readonly deviceStateBytes: number;
}
