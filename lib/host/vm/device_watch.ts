/** The primary's view of its VM's devices: what a secondary's QEMU must have. */
import { getLogger } from "@logtape/logtape";
import type { SectionName } from "../../qemu/devices/device_state.ts";
import {
  compareShapes,
  describeChange,
  type MachineShape,
} from "../../replica/secondary/machine_shape.ts";

const log = getLogger(["kemari", "protect"]);

/**
 * Reports devices that come and go between two full states: QEMU plugs and unplugs none during a
 * state.
 */
export class DeviceWatch {
  #seen: readonly SectionName[] | undefined;
  #last: MachineShape | undefined;
  #change: string | null = null;

  /** How the devices have changed since the first full state; null if they have not. */
  get change(): string | null {
    return this.#change;
  }

  /** @param sections The sections of the last full state; the same array for the same state. */
  look(sections: readonly SectionName[] | undefined): void {
    if (sections === undefined || sections === this.#seen) return;
    this.#seen = sections;
    const shape = { machine: "", blocks: [], sections };
    const last = this.#last;
    this.#last = shape;
    const change = last && compareShapes(last, shape);
    if (change === undefined) return;
    this.#change = describeChange(change);
    log.warn(
      "the VM has other devices than before: {change}; the secondary's QEMU must have the same, " +
        "or it will load nothing",
      { change: this.#change },
    );
  }
}
