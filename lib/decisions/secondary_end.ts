/**
 * What a secondary does when a session with a sender has ended: {@link afterSecondarySession}.
 *
 * **Why no case makes two VMs run.** The VM is started here only by `activate`. That is answered in
 * two cases. *Asked*: an operator, or an HA stack, has said `kemari failover`, and the sender has
 * been told to stop its VM and has closed, or is to be fenced first. *Lost*: the operator has asked
 * for it beforehand, with `--on-loss activate`, which wants a `--fence` or an explicit "none"; and
 * the sender went without a word, or was silent for the grace time, so that nothing that we know
 * speaks for its life. Each sign of life forbids it: that it has left (by LEAVE, which says that the
 * VM goes on there, or was shut down), that it was refused (it lives to be refused), that our own
 * storage or process has failed (which says nothing about the sender), and that it never said HELLO.
 *
 * **Why no case drops an acknowledged state, or starts one that clients have seen beyond.** No step
 * drops the replica: `wait` and `end` keep what was committed. And `activate` upon a loss needs the
 * replica to be *current*: the sender committed in this session and went without LEAVE, so its VM's
 * output was held, and nothing that left the primary is missing here. Where a later sender said HELLO
 * and committed nothing, the VM may have run unprotected since the last commit, and have said what is
 * not in the replica. Disks that are not whole are a reason of the same kind.
 */

/** How a session ended. */
export type SecondaryEnd =
  /** Without a word, by silence or by the end of its connection. */
  | "lost"
  /** It said that it leaves, and that the VM goes on at its side. */
  | "goes-on"
  /** It said that the VM was shut down. */
  | "vm-ended"
  /** We refused it, for what it sent or who it is. */
  | "refused"
  /** What keeps our replica has failed; it was told so. */
  | "storage"
  /** The connection was no sender's of this VM: no HELLO came, or another VM's, and nothing changed. */
  | "no-sender"
  /** It was told by `kemari failover` that the VM is ours, and has closed, or had time to. */
  | "yielded";

/** What is seen when a session ends without LEAVE. */
export interface SeenSecondaryEnd {
  /** `kemari failover` had told the sender that the VM is ours. */
  readonly wasTold: boolean;
  /** The sender had said HELLO, and was let in. */
  readonly wasAdmitted: boolean;
  /** The sender was turned away for whose VM it has: what is here has not changed. */
  readonly isStranger: boolean;
  /** What keeps our replica has failed. */
  readonly hasStorageFailed: boolean;
  /** The sender's silence or its connection has ended the session; else we have, for what it sent. */
  readonly isGone: boolean;
}

/** Judges how a session ended. Our own failing speaks for the sender's life before anything else. */
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
  /** Whether that is the last state of the VM whose output may have got out. */
  readonly isCurrent: boolean;
  /** Whether every disk of the replica is whole. */
  readonly isWhole: boolean;
  /** Whether a sender, or an operator's command, can reach us again. */
  readonly mayComeBack: boolean;
}

/** What it does then; `why` is what is said of it. */
export type SecondaryStep =
  | { readonly do: "nothing"; readonly why: "no-sender" }
  | { readonly do: "activate"; readonly why: "asked" | "lost" }
  /** Keeps the replica, and waits for a sender or a command. `isLoud`: somebody wanted otherwise. */
  | { readonly do: "wait" | "end"; readonly why: WaitReason; readonly isLoud: boolean };

/** Why it does not activate. */
export type WaitReason =
  /** The VM lives at the primary, or was shut down there. */
  | "goes-on"
  | "vm-ended"
  /** The primary lives: we are the ones who ended the session. */
  | "refused"
  | "storage"
  /** There is nothing to activate. */
  | "nothing-committed"
  /** The VM may have run on since, and said what is not here. */
  | "outrun"
  /** A disk of the replica is not whole. */
  | "incomplete"
  /** Nobody has asked for more. */
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
