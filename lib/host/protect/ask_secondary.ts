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

/** How long a secondary may answer that it is busy: only until it has given the lost session up. */
const BUSY_MS = 30_000;
const POLL_MS = 250;

/**
 * Asks a secondary that may have taken this primary for dead, over a new connection, whether it has
 * taken over. If not, it is told that the VM goes on here. The VM's output stays held meanwhile.
 *
 * @param options The session's settings. Its taps are not used.
 * @returns `unheard` if nobody answers. A command is not asked: it would be a new secondary.
 */
export async function askSecondary(
  target: Address,
  guard: LinkGuard,
  options: SenderLinkSettings,
  reactor: Reactor,
): Promise<Answer> {
  if (target.kind === "exec" || target.kind === "stdio") return "unheard";
  log.warn("the secondary may have taken this primary for dead: asking it, and holding all output");
  // Not ended by an interruption: what becomes of the VM depends on the answer.
  const begunAt = performance.now();
  const beside = besides("asking the secondary");
  for (;;) {
    let link: SenderLink | undefined;
    try {
      const peer = await connectPeer(
        withoutStart(target),
        guard,
        reactor,
        CONNECT_TIMEOUT_MS,
        never,
      );
      const asking = link = new SenderLink(reactor, peer, { ...options, taps: undefined });
      await reactor.runOn(() => asking.ready, (failure) => {
        if (isPeers(failure)) throw failure;
        beside(failure);
      });
      return await link.leave("goes-on") ? "heard" : "unheard";
    } catch (error) {
      if (isTakenOver(error)) return "taken-over";
      const fault = error instanceof WireError ? error.fault : undefined;
      // A secondary that activates may be fencing this primary, or waiting for an operator: hold
      // until it knows.
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

/** A secondary that is started now would know nothing. */
function withoutStart(target: Address): Address {
  if (target.kind !== "ssh") return target;
  return { ...target, options: { ...target.options, startRecv: undefined } };
}
