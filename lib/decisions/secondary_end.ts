/**
 * What a secondary does when a session with a sender has ended: {@link afterSecondarySession}.
 *
 * **Why no case makes two VMs run.** The VM is started here only by `activate`, in two cases.
 * *Asked*: an operator, or an HA stack, has said `kemari failover`, and the sender has been told to
 * stop its VM and has closed, or is to be fenced first. *Lost*: the operator has asked for it
 * beforehand, with `--on-loss activate`, which requires a `--fence` or an explicit "none"; and the
 * sender went without a message, or was silent for the grace time, so that there is no sign that it
 * is alive. Each such sign forbids it: that the sender has left (by LEAVE, which says that the VM
 * goes on there, or was shut down), that it was refused (it was alive then), that this end's own
 * storage or process has failed (which says nothing about the sender), and that it never sent
 * HELLO.
 *
 * **Why no case drops an acknowledged state, or starts one that is older than what clients have
 * seen.** No step drops the replica: `wait` and `end` keep what was committed. And `activate` after
 * a loss needs a *current* replica: the sender committed in this session and went without LEAVE, so
 * its VM's output was held, and everything that left the primary is in the replica. If a later
 * sender sent HELLO and committed nothing, the VM may have run unprotected since the last commit,
 * and have sent output that the replica does not know. Disks that are not whole are a reason of the
 * same kind.
 */

/** How a session ended. */
export type SecondaryEnd =
  /** Without a message: by silence or by the end of the connection. */
  | "lost"
  /** The sender said that it leaves, and that the VM goes on at its side. */
  | "goes-on"
  /** The sender said that the VM was shut down. */
  | "vm-ended"
  /** This end refused the sender, for what it sent or who it is. */
  | "refused"
  /** The replica's storage has failed, and the sender was told. */
  | "storage"
  /**
   * The connection was not of this VM's sender: no HELLO came, or that of another VM, and nothing
   * changed.
   */
  | "no-sender"
  /**
   * After `kemari failover` the sender was told that this end takes over, and has closed, or had
   * time to.
   */
  | "yielded";

/** What is seen when a session ends without LEAVE. */
export interface SeenSecondaryEnd {
  /** Whether the sender was told, because of `kemari failover`, that this end takes over. */
  readonly wasTold: boolean;
  /** Whether the sender had sent HELLO, and was admitted. */
  readonly wasAdmitted: boolean;
  /** Whether the sender was refused because it has another VM: the replica has not changed. */
  readonly isStranger: boolean;
  /** Whether the replica's storage has failed. */
  readonly hasStorageFailed: boolean;
  /**
   * Whether the sender's silence or its connection has ended the session; otherwise this end has,
   * for what it sent.
   */
  readonly isGone: boolean;
}

/**
 * Judges how a session ended. If this end has failed, the sender counts as alive, whatever else is
 * seen.
 */
export function judgeSecondaryEnd(seen: SeenSecondaryEnd): SecondaryEnd {
  if (seen.wasTold) return "yielded";
  if (!seen.wasAdmitted || seen.isStranger) return "no-sender";
  if (seen.hasStorageFailed) return "storage";
  return seen.isGone ? "lost" : "refused";
}

/** What a secondary knows then. */
export interface AtSecondaryEnd {
  readonly end: SecondaryEnd;
  /** `--on-loss`. */
  readonly onLoss: "wait" | "activate" | "exit";
  /** The last committed transaction; 0 if there is none. */
  readonly committed: number;
  /** Whether no later output of the VM can have left the primary. */
  readonly isCurrent: boolean;
  /** Whether every disk of the replica is whole. */
  readonly isWhole: boolean;
  /** Whether a sender, or an operator's command, can reach this end again. */
  readonly mayComeBack: boolean;
}

/** What a secondary does then; `why` is the reason to log. */
export type SecondaryStep =
  | { readonly do: "nothing"; readonly why: "no-sender" }
  | { readonly do: "activate"; readonly why: "asked" | "lost" }
  /**
   * Keeps the replica, and waits for a sender or a command, or ends. `isLoud`: the operator wanted
   * otherwise.
   */
  | { readonly do: "wait" | "end"; readonly why: WaitReason; readonly isLoud: boolean };

/** Why a secondary does not activate. */
export type WaitReason =
  /** The VM lives at the primary, or was shut down there. */
  | "goes-on"
  | "vm-ended"
  /** The primary is alive: this end has ended the session. */
  | "refused"
  | "storage"
  /** There is nothing to activate. */
  | "nothing-committed"
  /** The VM may have run on since, and sent output that the replica does not know. */
  | "outrun"
  /** A disk of the replica is not whole. */
  | "incomplete"
  /** Activation is not wanted. */
  | "lost";

/** Decides what a secondary does at a session's end. */
export function afterSecondarySession(known: AtSecondaryEnd): SecondaryStep {
  const { end, onLoss, committed, isCurrent, isWhole, mayComeBack } = known;
  if (end === "yielded") return { do: "activate", why: "asked" };
  if (end === "no-sender" && mayComeBack) return { do: "nothing", why: "no-sender" };
  const mayWait = mayComeBack && onLoss !== "exit";
  const keep = (why: WaitReason, isLoud = false): SecondaryStep => {
    return { do: mayWait ? "wait" : "end", why, isLoud };
  };
  if (end === "goes-on" || end === "vm-ended") return keep(end);
  const wanted = onLoss === "activate";
  if (committed === 0) return keep("nothing-committed");
  if (end === "refused" || end === "storage") return keep(end, wanted);
  if (!wanted || end === "no-sender") return keep("lost");
  if (!isCurrent) return keep("outrun", true);
  if (!isWhole) return keep("incomplete", true);
  return { do: "activate", why: "lost" };
}
