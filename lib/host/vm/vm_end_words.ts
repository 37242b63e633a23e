/** Messages on a VM that has ended, sleeps, or whose migration somebody has ended. */
import { getLogger } from "@logtape/logtape";
import type { VmFate } from "../../decisions/vm_fate.ts";
import { KemariError, QemuError, TransportError } from "../../errors.ts";
import { VmEnded } from "./vm_watch.ts";

const log = getLogger(["kemari", "protect"]);

/** The message on a VM that somebody has paused. */
export const PAUSED = "the VM is paused, and is synchronized when it runs again";

/** A VM's fate in words, for the secondary and its operator: the reason in a LEAVE. */
export function fateInWords(fate: VmFate | undefined): string {
  switch (fate?.kind) {
    case "ended":
      return fate.reason;
    case "asleep":
      return "the guest sleeps, suspended to RAM";
    case "cancelled":
      return `QEMU's migration was ended by ${fate.how}`;
    case "failed":
      return "QEMU's migration failed";
    case "alive":
      return "QEMU's migration was cut";
    default:
      return "";
  }
}

/**
 * The error with which a protection ends that was ended by its VM.
 *
 * @param error The error in which the end showed.
 * @param heard Whether the secondary has acknowledged what it was told; undefined if there was none.
 */
export function endedBy(
  fate: VmFate,
  error: unknown,
  heard: boolean | undefined,
  peer: string,
): unknown {
  const what = fateInWords(fate);
  switch (fate.kind) {
    case "ended":
      if (heard === true) {
        log.info("the secondary knows that the VM was shut down, and starts nothing");
      }
      if (heard !== false) return new VmEnded(what);
      return new TransportError(
        peer,
        "read",
        `the VM was shut down (${what}), and the secondary has not acknowledged it: it may take ` +
          `over`,
        {
          party: "peer",
          hint: "no output of the guest since its last transaction has left; see kemari " +
            "status at the secondary before you start the VM anywhere",
        },
      );
    case "stranded":
      return new QemuError("x-colo", "GenericError", STRANDED, {
        hint:
          "end this QEMU (quit); the secondary has the VM as it was a moment before. Turn S3 off " +
          "to keep it from happening again: see kemari doctor",
      });
    case "dead":
      return error;
    default:
      if (error instanceof KemariError && !(error instanceof TransportError)) return error;
      return new QemuError("migrate", "GenericError", what, {
        cause: error,
        hint: heard
          ? "the VM is here, unprotected, and the secondary knows; kemari protect begins again"
          : "the VM is here: do not activate it at the secondary as well",
      });
  }
}

const STRANDED =
  "the guest has suspended itself in the very moment of a checkpoint, and QEMU cannot " +
  "take its VM out of it again";
