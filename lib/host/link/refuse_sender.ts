import { TransportError } from "../../errors.ts";
import { Replica } from "../../replica/replica.ts";
import { Secondary } from "../../replica/secondary.ts";
import { OutputQueue } from "../system/channel.ts";
import { closeAfterLastWords } from "./linger.ts";
import type { PeerConnection } from "./peer.ts";
import type { Reactor } from "../system/reactor.ts";

/** Why a sender is not wanted, in words. */
const WHY_NOT = {
  busy: "another sender is being served",
  activating: "its replica is about to become the VM",
  "taken-over": "its replica is the VM by now",
} as const;

/** Tells a second sender why it is not wanted: the first, if there is one, is left alone. */
export function refuseSender(
  peer: PeerConnection,
  reactor: Reactor,
  reason: keyof typeof WHY_NOT,
): void {
  const options = {
    heartbeatMs: 0,
    graceMs: 0,
    maxTransactionBytes: 0,
    committed: 0,
    software: "",
  };
  const counters = { committed: 0, pages: 0, zeroPages: 0, payloadBytes: 0, lastPayloadBytes: 0 };
  const secondary = new Secondary(new Replica(0), counters, options, () => 0);
  secondary.refuse(
    new TransportError(
      peer.name,
      "connect",
      WHY_NOT[reason],
      { party: "peer" },
    ),
    reason,
  );
  const output = new OutputQueue(peer.output, peer.name, "peer");
  try {
    output.push(secondary.takeOutput());
    output.flush();
  } catch {
    // It has given up by itself.
  }
  closeAfterLastWords(peer, reactor);
}
