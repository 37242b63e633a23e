import { getLogger } from "@logtape/logtape";
import type { Answer } from "../../decisions/primary_end.ts";
import { WireError } from "../../errors.ts";
import type { Address } from "../system/address.ts";
import type { SenderLinkSettings } from "../link/sender_link_settings.ts";
import { CONNECT_TIMEOUT_MS, connectPeer } from "../link/peer_connection.ts";
import { isPeers } from "../link/lost_secondary.ts";
import { besides } from "../system/failure_beside.ts";
import type { Reactor } from "../system/reactor.ts";
import { isTakenOver } from "../vm/release_vm.ts";
import { SenderLink } from "../link/sender_link.ts";
import type { LinkGuard } from "../tls/link_guard.ts";
import { never } from "../system/never.ts";

const log = getLogger(["kemari", "protect"]);

/** A secondary that is about to give the lost session up says that it is busy; not for longer. */
const BUSY_MS = 30_000;
const POLL_MS = 250;

/**
 * Asks a secondary that may have taken us for dead whether the VM is its own by now, over a new
 * connection; where it is not, it is told that the VM goes on here. What the VM says meanwhile stays
 * held.
 *
 * @param options Of the session: who we are, and how patient. Its taps are left alone.
 * @returns `unheard` where nobody answers; a command is not asked, it would be a new secondary.
 */
export async function askSecondary(
  target: Address,
  guard: LinkGuard,
  options: SenderLinkSettings,
  reactor: Reactor,
): Promise<Answer> {
  if (target.kind !== "tcp" && target.kind !== "unix") return "unheard";
  log.warn("the secondary may have taken this primary for dead: asking it, and holding all output");
  // An interruption must hear it, too: the VM's fate hangs on it.
  const begunAt = performance.now();
  const beside = besides("the secondary is asked");
  for (;;) {
    let link: SenderLink | undefined;
    try {
      const peer = await connectPeer(target, guard, reactor, CONNECT_TIMEOUT_MS, never);
      const asking = link = new SenderLink(reactor, peer, { ...options, taps: undefined });
      await reactor.runOn(() => asking.ready, (failure) => {
        if (isPeers(failure)) throw failure;
        beside(failure);
      });
      return await link.leave("goes-on") ? "heard" : "unheard";
    } catch (error) {
      if (isTakenOver(error)) return "taken-over";
      const fault = error instanceof WireError ? error.fault : undefined;
      // One that activates may be fencing us, or waiting for an operator: until it knows, hold.
      const waits = fault === "activating" ||
        (fault === "busy" || !isPeers(error)) && performance.now() - begunAt < BUSY_MS;
      if (!waits) {
        log.warn("the secondary does not answer: {reason}", { reason: (error as Error).message });
        return "unheard";
      }
      let isOver = false;
      reactor.after(POLL_MS, () => isOver = true);
      await reactor.runOn(() => isOver, beside);
    } finally {
      link?.close();
    }
  }
}
