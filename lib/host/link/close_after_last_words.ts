import { MOST_RELEASE_MS } from "../vm/release_vm.ts";
import type { Reactor } from "../system/reactor.ts";
import type { Transport } from "../system/transport.ts";

/** How long a peer that is still sending has to read the last message. */
export const LINGER_MS = 1000;
/**
 * How long a sender has to stop its VM once it was told to: as long as it waits for QEMU, and some
 * time for the way. A sender that has stopped its VM closes the connection, so only a sender that
 * is dead or cut off takes so long.
 */
export const YIELD_MS = MOST_RELEASE_MS + 2000;

/**
 * Closes a connection when its last message has been written and the peer has closed its side: if
 * unread bytes are left, closing destroys the message. What the peer sends meanwhile is ignored.
 */
export function closeAfterLastWords(peer: Transport, reactor: Reactor): void {
  const scrap = new Uint8Array(64 * 1024);
  const orGone = (act: () => void) => () => {
    try {
      act();
    } catch {
      // The peer has gone: nobody is left to read the message.
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
