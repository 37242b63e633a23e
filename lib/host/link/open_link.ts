import { ImageMarks, type MarkedDisk } from "../image/image_marks.ts";
import type { Reactor } from "../system/reactor.ts";
import type { SenderLinkSettings } from "./sender_link_settings.ts";
import type { PeerConnection } from "./peer_connection.ts";
import { SenderLink } from "./sender_link.ts";

/**
 * Begins a session over a connection: the VM's images are marked, then HELLO is said.
 *
 * @param peer The link's from then on. Where there is to be none, it is closed.
 * @param images What is marked, until the secondary has looked or the link is closed.
 * @returns The link, the caller's to close.
 * @throws the signal's reason, or what the reactor has met meanwhile: nothing is left of the session.
 */
export async function openLink(
  reactor: Reactor,
  peer: PeerConnection,
  options: Omit<SenderLinkSettings, "marks">,
  images: readonly MarkedDisk[],
  signal: AbortSignal,
): Promise<SenderLink> {
  const marks = new ImageMarks(images);
  try {
    await reactor.during(marks.placed, signal);
  } catch (error) {
    peer.transport.close();
    peer.command?.kill();
    await reactor.seeThrough(marks.remove(), () => {});
    throw error;
  }
  return new SenderLink(reactor, peer, { ...options, marks });
}
