/**
 * What each run state of QEMU means for protecting its VM.
 *
 * @see QEMU qapi/run-state.json (RunState), system/runstate.c (which may follow which)
 */

/** What to do with a VM in a run state, before there is a session. */
export type AtStart =
  /** It can be protected. */
  | { readonly kind: "protect" }
  /** It stands still, and will run again by itself or when an operator lets it. */
  | { readonly kind: "wait"; readonly reason: string }
  /** There is no VM yet, and one may come by an incoming migration. */
  | { readonly kind: "arrives"; readonly reason: string }
  /** There is nothing to protect, unless an operator does more than let it go on. */
  | { readonly kind: "refuse"; readonly reason: string }
  /** It was shut down, or runs elsewhere. */
  | { readonly kind: "over"; readonly reason: string };

const RUNS_AGAIN = "it is protected once it runs";

/** Every run state that QEMU 5.2 to 11.1 know. Reasons are whole sentences. */
export const RUN_STATES: Readonly<Record<string, AtStart>> = {
  "running": { kind: "protect" },
  "paused": wait(`The VM stands still (paused): ${RUNS_AGAIN} (cont).`),
  // libvirt starts each VM with `-S`.
  "prelaunch": wait(`The VM stands still (prelaunch): ${RUNS_AGAIN} (cont).`),
  "debug": wait(`A debugger holds the VM (debug): ${RUNS_AGAIN}.`),
  "suspended": wait(
    "The guest sleeps (suspended to RAM): it is protected once it wakes (system_wakeup).",
  ),
  "io-error": wait(
    `A disk has failed, and QEMU has stopped the VM (io-error): ${RUNS_AGAIN}; mend the disk, ` +
      `then cont.`,
  ),
  "watchdog": wait(
    `The guest's watchdog has stopped the VM (watchdog): ${RUNS_AGAIN} (cont, or system_reset ` +
      `before it).`,
  ),
  "guest-panicked": wait(
    `The guest has panicked, and QEMU has stopped the VM (guest-panicked): ${RUNS_AGAIN} ` +
      "(system_reset, then cont).",
  ),
  "save-vm": wait(`A snapshot of the VM is being saved (save-vm): ${RUNS_AGAIN}.`),
  "restore-vm": wait(`A snapshot of the VM is being loaded (restore-vm): ${RUNS_AGAIN}.`),
  "internal-error": refuse(
    "The accelerator cannot run the guest on (internal-error): it must be reset (system_reset, " +
      "then cont) before it is protected.",
  ),
  "inmigrate": {
    kind: "arrives",
    reason:
      "This QEMU waits for an incoming migration (inmigrate): its VM has not arrived, or it is " +
      "a secondary.",
  },
  "finish-migrate": refuse("The VM is at the end of a migration (finish-migrate): wait for it."),
  "colo": refuse("The VM stands still in somebody's COLO (colo): end that before it is protected."),
  "preconfig": refuse("The VM is not made yet (preconfig): let QEMU make it (x-exit-preconfig)."),
  "shutdown": over(
    "The guest has shut down, and QEMU keeps it (shutdown): system_reset and cont start it again.",
  ),
  // Not only `cont`: if the VM has arrived somewhere, there would be two of it.
  "postmigrate": over(
    "The VM was migrated (postmigrate): protect it where it runs now. Only if it runs nowhere, " +
      "let it run here again (cont).",
  ),
};

function wait(reason: string): AtStart {
  return { kind: "wait", reason };
}

function refuse(reason: string): AtStart {
  return { kind: "refuse", reason };
}

function over(reason: string): AtStart {
  return { kind: "over", reason };
}

/**
 * What to do about a VM in this state.
 *
 * @param runState The run state by `query-status`; `unknown` if QEMU does not tell, which does not
 *   prevent protection.
 */
export function atStart(runState: string): AtStart {
  return RUN_STATES[runState] ??
    (runState === "unknown"
      ? { kind: "protect" }
      : refuse(`The VM is in state ${runState}, which is not known: it must run to be protected.`));
}

/**
 * Whether the end of COLO would harm a VM in this state, and has to wait for another state. QEMU,
 * told that the secondary is lost, lets the VM run from any state (measured, 5.2 to 11.1):
 *
 * - `suspended`: the guest goes on after the instruction by which it suspended itself, without
 *   having been woken; Linux then waits for ever;
 * - `internal-error`: QEMU aborts, since only a reset leads from that state to `running`.
 */
export function mustStayInColo(runState: string): boolean {
  return runState === "suspended" || runState === "internal-error";
}
