/**
 * Whether `kemari failover` starts the VM at the secondary: {@link mayFailOver}.
 *
 * Whoever asks says by asking that the primary is to be taken over from. What cannot be known from
 * the outside is how old the replica is: where the secondary knows that the VM has gone on since, or
 * was shut down, starting it from the replica gives up what clients have seen, or brings to life what
 * somebody has ended; and where the VM still runs, it makes two. An HA stack asks for a failover of a
 * VM whose protection had ended long before just as it does of one that was protected until now. So
 * these cases want a second word, `--stale`.
 */

/** Why a replica is not the last state of its VM. */
export type Behind =
  /** An earlier recv has left it: nobody here has seen how the session ended. */
  | "unknown"
  /** The primary has said that the VM stays there, unprotected. */
  | "goes-on"
  /** The primary has said that the VM was shut down. */
  | "vm-ended"
  /** We have ended the session, and told the primary so: its VM goes on. */
  | "refused"
  | "storage"
  /** A sender has come since, and has committed nothing. */
  | "returned"
  /** We stood still for longer than the primary waits: it has gone on without us. */
  | "away";

/** What is known when somebody asks. */
export interface AtFailover {
  /** The last committed transaction; 0 if there is none. */
  readonly committed: number;
  /** Why it is not the VM's last state; undefined if it is. */
  readonly behind: Behind | undefined;
  /** Whether a sender is connected. */
  readonly isSenderThere: boolean;
  /** `--stale`: the replica is wanted as it is. */
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
  // It is about to bring what is missing, and can be told to stop its VM then.
  if (isSenderThere) return { do: "refuse", why: "sender-is-there" };
  if (behind === "unknown" || stale) return { do: "take-over", warns: true };
  return { do: "refuse", why: behind };
}
