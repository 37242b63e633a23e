import type { Reactor } from "../system/reactor.ts";
import type { Transport } from "../system/transport.ts";

/** How long a peer that is still sending has to read the last message. */
export const LINGER_MS = 1000;

/**
 * Closes a connection when its last message has been written and the peer has closed its side: if
 * unread bytes are left, closing destroys the message. What the peer sends meanwhile is ignored.
 *
 * @param closed Called when the connection is closed, which may be at once.
 * @returns Closes the connection without waiting any longer.
 */
export function closeAfterLastWords(
  peer: Transport,
  reactor: Reactor,
  closed: () => void = () => {},
): () => void {
  let isClosed = false;
  const finish = () => {
    if (isClosed) return;
    isClosed = true;
    cancel();
    watch.stop();
    peer.close();
    closed();
  };
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
  const cancel = reactor.after(LINGER_MS, finish);
  say();
  return finish;
}

/** Buffer for bytes that are read and ignored. */
const scrap = new Uint8Array(64 * 1024);
