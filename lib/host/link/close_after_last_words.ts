import { MOST_RELEASE_MS } from "../vm/release_vm.ts";
import type { Reactor } from "../system/reactor.ts";
import type { Transport } from "../system/transport.ts";

/** Time for last words to reach a peer that is still sending. */
export const LINGER_MS = 1000;
/**
 * Time for a sender to stop its VM once it was told to: what it waits for QEMU, and some for its way.
 * A sender that has stopped it closes, so only one that is dead or cut off is waited for so long.
 */
export const YIELD_MS = MOST_RELEASE_MS + 2000;

/**
 * Closes a connection once its last words have been written, and the peer has closed its side: closed
 * over unread bytes, it would take them with it. What the peer says meanwhile is not looked at.
 */
export function closeAfterLastWords(peer: Transport, reactor: Reactor): void {
  const scrap = new Uint8Array(64 * 1024);
  const orGone = (act: () => void) => () => {
    try {
      act();
    } catch {
      // It has gone: then there is nobody to hear us.
      finish();
    }
  };
  const say = orGone(() => {
    const isSaid = peer.flush();
    if (isSaid && !peer.isSocket) return finish();
    if (isSaid) peer.endOutput();
    watch.want(peer.isSocket, !isSaid);
  });
  const hear = orGone(() => {
    if (peer.read(scrap) === 0) finish();
  });
  const watch = peer.watch(reactor, { readable: hear, writable: say });
  const cancel = reactor.after(LINGER_MS, () => finish());
  const finish = () => {
    cancel();
    watch.stop();
    peer.close();
  };
  say();
}
