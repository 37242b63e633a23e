/**
 * Whether `kemari failover` starts the VM at the secondary: {@link mayFailOver}.
 *
 * By asking, an operator says that the secondary is to take over. But the operator may not know how
 * old the replica is. If the secondary knows that the VM has gone on since, or was shut down, then
 * starting it from the replica discards what clients have seen, or revives a VM that somebody has
 * ended; and if the VM still runs, there are two. An HA stack asks for a failover of a VM whose
 * protection ended long ago in the same way as of a VM that was protected until now. So these cases
 * require an option, `--stale`.
 */

/** Why a replica is not the last state of its VM. */
export type Behind =
  /** An earlier recv has left the replica: this process has not seen how the session ended. */
  | "unknown"
  /** The primary has said that the VM stays there, unprotected. */
  | "goes-on"
  /** The primary has said that the VM was shut down. */
  | "vm-ended"
  /** This end has ended the session, and told the primary so: its VM goes on. */
  | "refused"
  | "storage"
  /** A sender has come since, and has committed nothing. */
  | "returned"
  /** This process stood still for longer than the primary waits: the primary has gone on alone. */
  | "away";

/** What is known when an operator asks. */
export interface AtFailover {
  /** The last committed transaction; 0 if there is none. */
  readonly committed: number;
  /** Why the replica is not the VM's last state; undefined if it is. */
  readonly behind: Behind | undefined;
  /** Whether a sender is connected. */
  readonly isSenderThere: boolean;
  /** `--stale`: whether the replica is to be started as it is. */
  readonly stale: boolean;
}

/** The answer. */
export type FailoverAnswer =
  | { readonly do: "take-over"; readonly warns: boolean }
  | { readonly do: "refuse"; readonly why: "nothing-committed" | "sender-is-there" | Behind };

/** Decides whether the VM is started. */
export function mayFailOver(
  { committed, behind, isSenderThere, stale }: AtFailover,
): FailoverAnswer {
  if (committed === 0) return { do: "refuse", why: "nothing-committed" };
  if (behind === undefined) return { do: "take-over", warns: false };
  // The sender is about to bring what is missing, and can then be told to stop its VM.
  if (isSenderThere) return { do: "refuse", why: "sender-is-there" };
  if (behind === "unknown" || stale) return { do: "take-over", warns: true };
  return { do: "refuse", why: behind };
}
