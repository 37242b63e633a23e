/** How a `kemari recv` lets in senders that come by ssh: `kemari attach` asks for that, at the control socket. */
import { encodeAttached } from "../control/attach_lines.ts";
import type { AttachPlace, AttachRequest } from "../control/attach_request.ts";
import { TransportError } from "../errors.ts";
import type { Entrance } from "./door/entrance.ts";
import { libc } from "./system/libc.ts";
import { F_GETFL, F_SETFL, O_NONBLOCK } from "./system/linux.ts";
import type { BoundAddress } from "./system/sockaddr.ts";
import { PlainTransport } from "./system/transport.ts";
import type { LinkGuard } from "./tls/link_guard.ts";

/**
 * Lets a sender in.
 *
 * @param passed Descriptors to read from and to write to, for a session over ssh; closed in any case.
 * @param listen Where the receiver listens, as the user wrote it, for errors.
 * @param findEntrance Finds where senders come in, if there is such a thing; throws before there is.
 * @returns Where the sender can connect to, with its key; or nothing, when its session over ssh has
 *   ended.
 * @throws {TransportError} It cannot be let in: nothing was said to it then.
 */
export function letInBySsh(
  request: AttachRequest,
  passed: number[],
  listen: string,
  guard: Pick<LinkGuard, "sessionKeys" | "isEncrypted">,
  findEntrance: () => Pick<Entrance, "bound" | "admit"> | undefined,
): Promise<AttachPlace | undefined> {
  try {
    const entrance = findEntrance();
    if (request.way === "direct") {
      return Promise.resolve(direct(request, listen, guard, entrance?.bound));
    }
    if (entrance === undefined) {
      throw refused(
        listen,
        "this recv serves one connection",
        "start it with HOST:PORT or unix:PATH",
      );
    }
    if (passed.length !== 2) {
      throw refused(listen, "two descriptors have to come with this request");
    }
    for (const fd of passed) setNonblocking(fd);
    return overSsh(passed.splice(0), entrance);
  } finally {
    for (const fd of passed) libc().close(fd);
  }
}

function direct(
  { identity, key }: Extract<AttachRequest, { way: "direct" }>,
  listen: string,
  { sessionKeys, isEncrypted }: Pick<LinkGuard, "sessionKeys" | "isEncrypted">,
  bound: BoundAddress | undefined,
): AttachPlace {
  if (bound === undefined) {
    throw refused(listen, "this recv listens at no port", "use --over-ssh");
  }
  if (!isEncrypted || sessionKeys === undefined) {
    throw refused(
      listen,
      "this recv takes plain connections",
      "start it without --plain, at an address that is not loopback's; or use --over-ssh",
    );
  }
  const bytes = Uint8Array.from(key.match(/../g)!, (byte) => parseInt(byte, 16));
  if (!sessionKeys.add({ identity, key: bytes }, performance.now())) {
    throw refused(listen, "too many senders are about to come", "try again in a minute");
  }
  return bound;
}

function overSsh(
  [input, output]: readonly number[],
  entrance: Pick<Entrance, "admit">,
): Promise<undefined> {
  return new Promise((resolve) => {
    const peer = new PlainTransport(
      {
        input,
        output,
        name: "ssh",
        isSocket: false,
        close() {
          libc().close(input);
          libc().close(output);
          resolve(undefined);
        },
      },
      "peer",
      { kind: "ssh" },
    );
    // In front of whatever the session says.
    peer.push([new TextEncoder().encode(encodeAttached(undefined))]);
    entrance.admit(peer);
  });
}

/** Whoever shares the description has no more use for it. */
function setNonblocking(fd: number): void {
  libc().fcntl(fd, F_SETFL, BigInt(libc().fcntl(fd, F_GETFL, 0n) | O_NONBLOCK));
}

function refused(listen: string, what: string, hint?: string): TransportError {
  return new TransportError(listen, "connect", what, { party: "user", hint });
}
