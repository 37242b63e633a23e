import { encodeConnectionRefusal } from "../../txn/refusal.ts";
import type { Reactor } from "../system/reactor.ts";
import { closeAfterLastWords } from "./close_after_last_words.ts";
import type { Transport } from "../system/transport.ts";

/** Why a sender is refused, in words. */
const WHY_NOT = {
  busy: "another sender is being served",
  activating: "its replica is about to become the VM",
  "taken-over": "its replica is the VM by now",
} as const;

/** Tells a second sender why it is refused. The first, if there is one, is not disturbed. */
export function refuseSender(
  peer: Transport,
  reactor: Reactor,
  reason: keyof typeof WHY_NOT,
): void {
  try {
    peer.push(encodeConnectionRefusal(reason, `${peer.name}: ${WHY_NOT[reason]}`));
    peer.flush();
  } catch {
    // The sender has given up by itself.
  }
  closeAfterLastWords(peer, reactor);
}
