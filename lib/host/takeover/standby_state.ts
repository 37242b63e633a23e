/** Where a standby is, and what follows from that. */
import type { StandbyStatus } from "../../control/receiver_status.ts";
import type { Instance } from "./rehearsal.ts";

export type StandbyState =
  | { readonly at: "none" }
  | { readonly at: "checking" }
  /** @property tried Settles when a start has gone well or not, or the pause before it is over. */
  | { readonly at: "starting"; readonly tried: Promise<void> }
  /** Told: QEMU has our word to let the VM run, which may run from then on. */
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

/** What `kemari status` calls it. */
export function statusOf({ at }: StandbyState): StandbyStatus["state"] {
  if (at === "told") return "loading";
  return at === "closed" || at === "spent" ? "none" : at;
}
