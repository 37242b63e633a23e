/** Requests and responses on one TCP connection from inside a lab's namespace. */
import { insideNamespace } from "../fixtures/net_sniffer.ts";
import { TransportError } from "../lib/errors.ts";
import { ERRNO, errno, errnoText, libc } from "../lib/host/libc.ts";

const AF_INET = 2;
const SOCK_STREAM_NONBLOCK_CLOEXEC = 0o2004001;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const POLLIN = 1;
const POLLOUT = 4;
const MESSAGE_BYTES = 64;
const TIMEOUT_MS = 10_000;
/** How long signals and other tasks may have to wait. */
const SLICE_MS = 50;

/**
 * Sends a message, waits for it to come back, and again, for some seconds.
 *
 * @param namespace Where the client is. @param host IPv4 address of a server that echoes.
 * @returns Each round trip in ms.
 * @throws {TransportError} Nobody answers for 10 s.
 */
export async function measureRoundTrips(
  namespace: string,
  host: string,
  port: number,
  seconds: number,
  signal: AbortSignal,
): Promise<number[]> {
  const name = `${host}:${port}`;
  const fd = insideNamespace(
    namespace,
    () => libc().socket(AF_INET, SOCK_STREAM_NONBLOCK_CLOEXEC, 0),
  );
  try {
    connect(fd, host, port, name);
    libc().setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, new Uint8Array([1, 0, 0, 0]), 4);
    const message = new Uint8Array(MESSAGE_BYTES).fill(0x2e);
    const answer = new Uint8Array(MESSAGE_BYTES);
    const samples: number[] = [];
    const end = performance.now() + seconds * 1000;
    while (performance.now() < end) {
      const slice = performance.now() + SLICE_MS;
      while (performance.now() < slice) {
        const begun = performance.now();
        if (Number(libc().write(fd, message, BigInt(message.length))) !== message.length) {
          throw failed(name, "write");
        }
        for (let got = 0; got < MESSAGE_BYTES;) {
          wait(fd, POLLIN, name);
          const count = Number(libc().read(fd, answer, BigInt(MESSAGE_BYTES - got)));
          if (count === 0) {
            throw new TransportError(name, "read", "the guest closed the connection");
          }
          if (count < 0 && errno() !== ERRNO.EAGAIN) throw failed(name, "read");
          got += Math.max(0, count);
        }
        samples.push(performance.now() - begun);
      }
      await new Promise((resolve) => setTimeout(resolve));
      signal.throwIfAborted();
    }
    return samples;
  } finally {
    libc().close(fd);
  }
}

function connect(fd: number, host: string, port: number, name: string): void {
  const sockaddr = new Uint8Array(16);
  const view = new DataView(sockaddr.buffer);
  view.setUint16(0, AF_INET, true);
  view.setUint16(2, port);
  host.split(".").forEach((part, i) => sockaddr[4 + i] = Number(part));
  if (libc().connect(fd, sockaddr, sockaddr.length) === 0) return;
  if (errno() !== ERRNO.EINPROGRESS) throw failed(name, "connect");
  wait(fd, POLLOUT, name);
  // The second call tells how the first one ended.
  if (libc().connect(fd, sockaddr, sockaddr.length) < 0 && errno() !== EISCONN) {
    throw failed(name, "connect");
  }
}

const EISCONN = 106;

const pollfd = new Uint8Array(8);

function wait(fd: number, events: number, name: string): void {
  const view = new DataView(pollfd.buffer);
  view.setInt32(0, fd, true);
  view.setInt16(4, events, true);
  if (libc().poll(pollfd, 1n, TIMEOUT_MS) > 0) return;
  throw new TransportError(name, "read", `no answer for ${TIMEOUT_MS / 1000} s`);
}

function failed(name: string, phase: "connect" | "read" | "write"): TransportError {
  return new TransportError(name, phase, errnoText(errno()));
}
