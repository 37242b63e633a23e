/** The states of a standby, and what follows from them. */
import type { StandbyStatus } from "../../control/receiver_status.ts";
import type { Instance } from "./rehearsal.ts";

export type StandbyState =
  | { readonly at: "none" }
  | { readonly at: "checking" }
  /**
   * @property tried Settles when the start has succeeded or failed, or the pause before it is over.
   */
  | { readonly at: "starting"; readonly tried: Promise<void> }
  /** QEMU has been told to let the VM run: the VM may run from then on. */
  | { readonly at: "ready" | "loading" | "told" | "running"; readonly instance: Instance }
  /** The VM may have run here, and has ended. */
  | { readonly at: "spent" }
  /** Every activation is cold. */
  | { readonly at: "cold" }
  | { readonly at: "closed" };

/** Whether the VM runs here, or may have: the RAM's files are no replica any more. */
export function mayHaveRun({ at }: StandbyState): boolean {
  return at === "told" || at === "running" || at === "spent";
}

/** The state as `kemari status` calls it. */
export function statusOf({ at }: StandbyState): StandbyStatus["state"] {
  if (at === "told") return "loading";
  return at === "closed" || at === "spent" ? "none" : at;
}
