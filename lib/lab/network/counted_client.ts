/**
 * A client in a lab's namespace that numbers what it sends, and knows what of it had to be sent again.
 *
 * TCP's counters are the kernel's own (`TCP_INFO`). A segment that was sent again although the other
 * side had it is answered by a DSACK (RFC 2883): what is left was lost on its way.
 */
import { TransportError } from "../../errors.ts";
import { errno, errnoText, libc } from "../../host/system/libc.ts";
import {
  AF_INET,
  ERRNO,
  IPPROTO_TCP,
  POLLIN,
  POLLOUT,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  TCP_INFO,
  TCP_NODELAY,
} from "../../host/system/linux.ts";
import { insideNamespace } from "./net_sniffer.ts";

const TIMEOUT_MS = 10_000;
const SINK_BYTES = 64 * 1024;

/** Where `struct tcp_info` has what is read of it (Linux 4.19 and later, include/uapi/linux/tcp.h). */
const TCP_INFO_BYTES = 224;
const TCPI_TOTAL_RETRANS = 100;
const TCPI_DATA_SEGS_OUT = 156;
const TCPI_DSACK_DUPS = 216;

/** What TCP counts of one connection. */
export interface SegmentCounters {
  /** Segments with data, those that were sent again included. */
  readonly sent: number;
  readonly sentAgain: number;
  /** Of those sent again, the ones that the guest had already. */
  readonly hadAlready: number;
}

/** A socket that is connected to the guest. */
export class CountedClient implements Disposable {
  readonly #sink = new Uint8Array(SINK_BYTES);

  private constructor(private readonly fd: number, private readonly name: string) {}

  /** @throws {TransportError} Nobody answers there. */
  static connect(
    kind: "tcp" | "udp",
    namespace: string,
    host: string,
    port: number,
  ): CountedClient {
    const type = kind === "tcp"
      ? SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC
      : SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    const fd = insideNamespace(namespace, () => libc().socket(AF_INET, type, 0));
    const client = new CountedClient(fd, `${kind}:${host}:${port}`);
    try {
      client.#connect(host, port);
      if (kind === "tcp") {
        libc().setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, new Uint8Array([1, 0, 0, 0]), 4);
      }
      return client;
    } catch (error) {
      client[Symbol.dispose]();
      throw error;
    }
  }

  /** Sends all of it. @throws {TransportError} */
  send(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const rest = bytes.subarray(at);
      const count = Number(
        libc().write(this.fd, rest as Uint8Array<ArrayBuffer>, BigInt(rest.length)),
      );
      if (count >= 0) at += count;
      else if (errno() === ERRNO.EAGAIN) this.#wait(POLLOUT);
      else throw this.#failed("write");
    }
  }

  /** Takes what has come: a view, valid until the next call. @throws {TransportError} */
  receive(): Uint8Array {
    const count = Number(libc().read(this.fd, this.#sink, BigInt(SINK_BYTES)));
    if (count === 0) throw new TransportError(this.name, "read", "the guest closed the connection");
    if (count < 0 && errno() !== ERRNO.EAGAIN) throw this.#failed("read");
    return this.#sink.subarray(0, Math.max(0, count));
  }

  /** Waits for so many bytes, which nobody looks at. @throws {TransportError} */
  receiveAll(bytes: number): void {
    for (let got = 0; got < bytes;) {
      this.#wait(POLLIN);
      got += this.receive().length;
    }
  }

  /** Of a TCP connection. */
  get segments(): SegmentCounters {
    const info = new Uint8Array(TCP_INFO_BYTES);
    const length = new Uint8Array(new Uint32Array([TCP_INFO_BYTES]).buffer);
    if (libc().getsockopt(this.fd, IPPROTO_TCP, TCP_INFO, info, length) < 0) {
      throw this.#failed("read");
    }
    const at = (offset: number) => new DataView(info.buffer).getUint32(offset, true);
    return {
      sent: at(TCPI_DATA_SEGS_OUT),
      sentAgain: at(TCPI_TOTAL_RETRANS),
      hadAlready: at(TCPI_DSACK_DUPS),
    };
  }

  [Symbol.dispose](): void {
    libc().close(this.fd);
  }

  #connect(host: string, port: number): void {
    const sockaddr = new Uint8Array(16);
    const view = new DataView(sockaddr.buffer);
    view.setUint16(0, AF_INET, true);
    view.setUint16(2, port);
    host.split(".").forEach((part, i) => sockaddr[4 + i] = Number(part));
    if (libc().connect(this.fd, sockaddr, sockaddr.length) === 0) return;
    if (errno() !== ERRNO.EINPROGRESS) throw this.#failed("connect");
    this.#wait(POLLOUT);
    // The second call tells how the first one ended.
    if (libc().connect(this.fd, sockaddr, sockaddr.length) < 0 && errno() !== ERRNO.EISCONN) {
      throw this.#failed("connect");
    }
  }

  #wait(events: number): void {
    const pollfd = new Uint8Array(8);
    const view = new DataView(pollfd.buffer);
    view.setInt32(0, this.fd, true);
    view.setInt16(4, events, true);
    if (libc().poll(pollfd, 1n, TIMEOUT_MS) > 0) return;
    throw new TransportError(this.name, "read", `no answer for ${TIMEOUT_MS / 1000} s`);
  }

  #failed(phase: "connect" | "read" | "write"): TransportError {
    return new TransportError(this.name, phase, errnoText(errno()));
  }
}
