/**
 * What has become of a VM whose QEMU has ended a session: by the end of its stream or its monitor, or by
 * a word of its own.
 *
 * **Why no case makes two VMs run.** The secondary takes over by itself only where nobody has told it
 * otherwise. It is told wherever QEMU lives, or has said before its end that it shuts its VM down: the
 * VM is here then, or nowhere. Of a QEMU that is gone without that word, and of one that is silent,
 * nothing is known, and nothing is said.
 */
import type { PrimaryEnd } from "./primary_end.ts";

/** What QEMU has said of its VM, and says when it is asked. */
export interface VmEvidence {
  /**
   * The reason of SHUTDOWN: QEMU has ended its VM, and itself unless it is told to stay. It says so
   * before it lets go of its migration and its monitor.
   */
  readonly shutdown?: string;
  /** How the monitor was found; one that is closed was read to its end before. */
  readonly monitor: "answers" | "silent" | "closed";
  /**
   * Whether QEMU may be waiting for this process, which it has started by `exec:`, to end: it answers
   * nothing meanwhile (QEMU io/channel-command.c). That it has closed our stream, and keeps its monitor
   * open, then shows that it lives; a process that dies closes both.
   */
  readonly waitsForUs?: boolean;
  /** Whether the guest has suspended itself to RAM (SUSPEND), and has not been woken (WAKEUP). */
  readonly isAsleep?: boolean;
  /** `query-status`'s word, where the monitor answers. */
  readonly runState?: string;
  /** `query-migrate`'s word, where the monitor answers. */
  readonly migration?: string;
}

/** What has become of it. */
export type VmFate =
  /** QEMU is gone, or cannot be asked, and has not said why. */
  | { readonly kind: "dead" }
  /** It was shut down: by the guest, by an operator, or by a signal. */
  | { readonly kind: "ended"; readonly reason: string }
  /** The guest has suspended itself to RAM. */
  | { readonly kind: "asleep" }
  /**
   * The guest has suspended itself in the very moment in which QEMU stopped its VM for us. From there
   * QEMU has no way back to `suspended`: 10.0 and 11.1 abort where they are to let the VM go on, and 7.2
   * wakes the guest without telling it. So it is left as it is: a loss, for which the secondary takes
   * over from the moment before.
   */
  | { readonly kind: "stranded" }
  /** Somebody has ended QEMU's migration, and the VM is here. */
  | { readonly kind: "cancelled"; readonly how: string }
  /** QEMU could not go on with its migration, and the VM is here. */
  | { readonly kind: "failed" }
  /** The VM is here, and its migration has not ended by QEMU's doing. */
  | { readonly kind: "alive" };

/** Judges by all that is known. */
export function judgeFate(evidence: VmEvidence): VmFate {
  const { shutdown, monitor, waitsForUs, isAsleep = false, runState, migration } = evidence;
  if (shutdown !== undefined) return { kind: "ended", reason: shutdown };
  if (monitor === "silent" && waitsForUs) return { kind: "alive" };
  if (monitor !== "answers") return { kind: "dead" };
  // It was so before we came: QEMU says SHUTDOWN once.
  if (runState === "shutdown") return { kind: "ended", reason: "it was shut down before" };
  if (runState === "suspended") return { kind: "asleep" };
  if (isAsleep && STOPPED_FOR_US.has(runState ?? "")) return { kind: "stranded" };
  switch (migration) {
    case "cancelling":
    case "cancelled":
      return { kind: "cancelled", how: "migrate_cancel" };
    case "completed":
      return { kind: "cancelled", how: "x-colo-lost-heartbeat" };
    case "failed":
    case "failing":
      return { kind: "failed" };
    default:
      return { kind: "alive" };
  }
}

/** Run states in which a migration, and nobody else, keeps the VM. */
const STOPPED_FOR_US: ReadonlySet<string> = new Set(["colo", "finish-migrate", "postmigrate"]);

/** What kind of a session's end that is; `primary_end.ts` decides what follows. */
export function endBehind(fate: VmFate): PrimaryEnd {
  switch (fate.kind) {
    case "dead":
    case "stranded":
      return "vm-died";
    case "ended":
      return "vm-ended";
    case "asleep":
    case "cancelled":
    case "alive":
      return "vm-rests";
    case "failed":
      return "fault";
  }
}

/** The first wait before a session that somebody has ended is begun again. */
const FIRST_WAIT_MS = 2000;
const LONGEST_WAIT_MS = 120_000;
/** A session that has lasted for so long is no answer to the one before. */
const LONG_SESSION_MS = 60_000;

/**
 * How long to wait before a VM is protected again whose migration somebody has ended: not so long that
 * it stays unprotected for a slip, and longer each time for somebody who means it.
 *
 * @param before How long was waited the last time; 0 if there was none.
 * @param lastedMs How long the session lasted that was ended.
 */
export function waitAfterCancel(before: number, lastedMs: number): number {
  if (before === 0 || lastedMs >= LONG_SESSION_MS) return FIRST_WAIT_MS;
  return Math.min(2 * before, LONGEST_WAIT_MS);
}
