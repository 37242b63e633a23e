import type { Reactor } from "../system/reactor.ts";
import type { Transport } from "../system/transport.ts";

/** Time for last words to reach a peer that is still sending. */
export const LINGER_MS = 1000;

/**
 * Closes a connection whose last words have been written, once the peer has closed its side: closed
 * over unread bytes, it would take them with it.
 *
 * @param closed Told when that is done, which may be at once.
 * @returns Closes it without waiting any longer.
 */
export function closeAfterLastWords(
  peer: Transport,
  reactor: Reactor,
  closed: () => void = () => {},
): () => void {
  if (!peer.isSocket) {
    peer.close();
    closed();
    return () => {};
  }
  let isClosed = false;
  const close = () => {
    if (isClosed) return;
    isClosed = true;
    cancel();
    watch.stop();
    peer.close();
    closed();
  };
  const watch = peer.watch(reactor, { readable: () => hasEnded(peer) && close() });
  const cancel = reactor.after(LINGER_MS, close);
  peer.endOutput();
  watch.want(true, false);
  return close;
}

/** Where it all goes to that nobody reads: what is in it is never looked at. */
const scrap = new Uint8Array(64 * 1024);

/** Reads what is there, and forgets it. */
function hasEnded(peer: Transport): boolean {
  try {
    return peer.read(scrap) === 0;
  } catch {
    // It has gone: then there is nobody to hear us.
    return true;
  }
}
