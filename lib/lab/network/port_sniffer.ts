/** Who sends what, and in which order, where several hosts hang on one bridge. */
import { QemuError } from "../../errors.ts";
import { errno, errnoText, libc } from "../../host/system/libc.ts";
import { insideNamespace } from "./net_sniffer.ts";
import {
  AF_PACKET,
  ETH_P_ALL_NETWORK_ORDER,
  PACKET_OUTGOING,
  PACKET_STATISTICS,
  SIOCGIFINDEX,
  SO_RCVBUFFORCE,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_RAW,
  SOL_PACKET,
  SOL_SOCKET,
} from "../../host/system/linux.ts";

const RECEIVE_BUFFER_BYTES = 64 << 20;
const FRAME_BYTES = 68 * 1024;

const SYMBOLS = {
  recvfrom: {
    parameters: ["i32", "buffer", "usize", "i32", "buffer", "buffer"],
    result: "isize",
  },
} as const;

/** A frame that came in at a port. */
export interface PortFrame {
  readonly port: string;
  /** When it was taken here, `Date.now()`; the order of frames is exact, this is not. */
  readonly atMs: number;
  readonly frame: Uint8Array;
}

/**
 * Sees every frame that comes in at some ports of a namespace. It is one socket for all of them, so
 * that what is taken from it is in the order in which it passed.
 */
export class PortSniffer implements Disposable {
  readonly #buffer = new Uint8Array(FRAME_BYTES);
  readonly #system = Deno.dlopen("libc.so.6", SYMBOLS);

  private constructor(
    private readonly fd: number,
    private readonly ports: ReadonlyMap<number, string>,
  ) {}

  /** @param ports Names of interfaces. */
  static open(namespace: string, ports: readonly string[]): PortSniffer {
    return insideNamespace(namespace, () => {
      const fd = libc().socket(
        AF_PACKET,
        SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC,
        ETH_P_ALL_NETWORK_ORDER,
      );
      if (fd < 0) throw new QemuError("sniffer", "NoSocket", errnoText(errno()));
      const size = new Uint8Array(new Int32Array([RECEIVE_BUFFER_BYTES]).buffer);
      libc().setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, size, 4);
      const indexes = new Map<number, string>();
      for (const port of ports) {
        const request = new Uint8Array(40);
        request.set(new TextEncoder().encode(port));
        if (libc().ioctl(fd, SIOCGIFINDEX, request) < 0) {
          const reason = errnoText(errno());
          libc().close(fd);
          throw new QemuError("sniffer", "NoInterface", `${port} in ${namespace}: ${reason}`);
        }
        indexes.set(new DataView(request.buffer).getInt32(16, true), port);
      }
      return new PortSniffer(fd, indexes);
    });
  }

  /** The frames since the last call, in the order in which they passed. */
  take(): PortFrame[] {
    const frames: PortFrame[] = [];
    // struct sockaddr_ll: u16 family, u16 protocol, i32 interface, u16 hardware, u8 kind, …
    const address = new Uint8Array(20);
    const view = new DataView(address.buffer);
    const length = new Uint8Array(4);
    for (;;) {
      new DataView(length.buffer).setUint32(0, address.length, true);
      const { recvfrom } = this.#system.symbols;
      const bytes = this.#buffer.length;
      const count = Number(recvfrom(this.fd, this.#buffer, BigInt(bytes), 0, address, length));
      if (count < 0) return frames;
      const port = this.ports.get(view.getInt32(4, true));
      if (port === undefined || view.getUint8(10) === PACKET_OUTGOING) continue;
      frames.push({ port, atMs: Date.now(), frame: this.#buffer.slice(0, count) });
    }
  }

  /** Frames that passed unseen since the last call, because {@link take} was not called in time. */
  get missed(): number {
    // struct tpacket_stats: u32 packets, u32 drops. Reading resets it.
    const stats = new Uint8Array(8);
    const length = new Uint8Array(new Uint32Array([8]).buffer);
    libc().getsockopt(this.fd, SOL_PACKET, PACKET_STATISTICS, stats, length);
    return new DataView(stats.buffer).getUint32(4, true);
  }

  [Symbol.dispose](): void {
    libc().close(this.fd);
    this.#system.close();
  }
}
