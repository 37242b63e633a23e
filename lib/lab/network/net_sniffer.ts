/** Work inside another network namespace, from this process: open descriptors there, sniff there. */

import { QemuError } from "../../errors.ts";
import { readSome } from "../../host/system/channel.ts";
import { cString, errno, errnoText, libc } from "../../host/system/libc.ts";
import {
  AF_PACKET,
  CLONE_NEWNET,
  ETH_P_ALL_NETWORK_ORDER,
  O_CLOEXEC,
  O_RDONLY,
  SIOCGIFINDEX,
  SO_RCVBUFFORCE,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_RAW,
  SOL_SOCKET,
} from "../../host/system/linux.ts";

const SOCKADDR_LL_BYTES = 20;
const RECEIVE_BUFFER_BYTES = 64 << 20;
const FRAME_BYTES = 68 * 1024;

const SYMBOLS = { setns: { parameters: ["i32", "i32"], result: "i32" } } as const;

/**
 * Does something in a network namespace that `ip netns` knows: sockets and TAP devices opened by `work`
 * stay in that namespace for as long as they are open.
 *
 * @param work Must not be asynchronous: it is this thread that is moved, and moved back.
 */
export function insideNamespace<T>(name: string, work: () => T): T {
  const system = Deno.dlopen("libc.so.6", SYMBOLS);
  const home = openNamespace("/proc/thread-self/ns/net");
  const there = openNamespace(`/run/netns/${name}`);
  try {
    enter(system.symbols.setns(there, CLONE_NEWNET), name);
    try {
      return work();
    } finally {
      enter(system.symbols.setns(home, CLONE_NEWNET), "its own");
    }
  } finally {
    libc().close(home);
    libc().close(there);
    system.close();
  }
}

function openNamespace(path: string): number {
  const fd = libc().open(cString(path), O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) throw new QemuError("network lab", "NoNamespace", `${path}: ${errnoText(errno())}`);
  return fd;
}

function enter(result: number, name: string): void {
  if (result === 0) return;
  throw new QemuError("network lab", "NoNamespace", `cannot enter ${name}: ${errnoText(errno())}`);
}

/** Sees every frame that an interface of a namespace receives or sends. */
export class NetSniffer implements Disposable {
  readonly #buffer = new Uint8Array(FRAME_BYTES);

  private constructor(readonly fd: number, readonly ifname: string) {}

  /** @param namespace As `NetLab.client`. */
  static open(namespace: string, ifname: string): NetSniffer {
    return insideNamespace(namespace, () => {
      const fd = libc().socket(
        AF_PACKET,
        SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC,
        ETH_P_ALL_NETWORK_ORDER,
      );
      if (fd < 0) throw new QemuError("sniffer", "NoSocket", errnoText(errno()));
      const size = new Uint8Array(new Int32Array([RECEIVE_BUFFER_BYTES]).buffer);
      libc().setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, size, 4);
      const request = new Uint8Array(40);
      request.set(new TextEncoder().encode(ifname));
      const found = libc().ioctl(fd, SIOCGIFINDEX, request) === 0;
      const index = new DataView(request.buffer).getInt32(16, true);
      // struct sockaddr_ll: u16 family, u16 protocol (network order), i32 interface, …
      const address = new Uint8Array(SOCKADDR_LL_BYTES);
      const view = new DataView(address.buffer);
      view.setUint16(0, AF_PACKET, true);
      view.setUint16(2, ETH_P_ALL_NETWORK_ORDER, true);
      view.setInt32(4, index, true);
      if (!found || libc().bind(fd, address, SOCKADDR_LL_BYTES) < 0) {
        const reason = errnoText(errno());
        libc().close(fd);
        throw new QemuError("sniffer", "NoInterface", `${ifname} in ${namespace}: ${reason}`);
      }
      return new NetSniffer(fd, ifname);
    });
  }

  /** The frames since the last call, in the order in which they passed. */
  take(): Uint8Array[] {
    const frames: Uint8Array[] = [];
    for (;;) {
      const count = readSome(this.fd, this.#buffer, `sniffer on ${this.ifname}`);
      if (count === undefined) return frames;
      frames.push(this.#buffer.slice(0, count));
    }
  }

  [Symbol.dispose](): void {
    libc().close(this.fd);
  }
}
