import type { CheckpointContext } from "../../qemu/parser_state.ts";
import type { MachineShape } from "./machine_shape.ts";
import type { MachineRecord } from "../pages/page_store.ts";

/** The part of a state beside pages and shape. */
export type StagedState = MachineRecord & Pick<MachineState, "uuid">;

/** A VM's committed state, without the RAM. */
export interface MachineState extends MachineRecord {
  readonly uuid?: string;
  readonly shape: MachineShape;
  readonly context: CheckpointContext;
}

/** The size of a transaction. */
export interface TransactionSize {
  readonly pages: number;
  readonly zeroPages: number;
  readonly deviceStateBytes: number;
}
