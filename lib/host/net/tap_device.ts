import { TransportError } from "../../errors.ts";
import type { FramePort } from "./frame_port.ts";
import { cString, errno, errnoText, libc } from "../system/libc.ts";
import {
  AF_INET,
  ERRNO,
  IFF_NO_PI,
  IFF_TAP,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDWR,
  SIOCGIFINDEX,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  TUNSETIFF,
} from "../system/linux.ts";

const TUN_PATH = "/dev/net/tun";
const IFREQ_BYTES = 40;
const IFNAME_BYTES = 16;

const RETRY_MS = 5;
const DOWN_RETRY_MS = 100;

/** The longest frame that a TAP gives: 64 KiB and headers, if its MTU is huge. */
const READ_BYTES = 68 * 1024;

/** Whether an interface of that name exists in our network namespace. */
export function interfaceExists(ifname: string): boolean {
  const fd = libc().socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  try {
    return libc().ioctl(fd, SIOCGIFINDEX, ifreq(ifname, 0)) === 0;
  } finally {
    libc().close(fd);
  }
}

/**
 * A TAP device of this host: frames that are sent appear there as if they came in from a wire, and
 * frames that the host sends to the device are received.
 *
 * A TAP that is made here is removed with this process. A TAP that exists (`ip tuntap add`) is used
 * as it is: its address, bridge and state stay the operator's.
 */
export class TapDevice implements FramePort {
  readonly #buffer = new Uint8Array(READ_BYTES);
  #isDown = false;
  #refusedFrames = 0;
  #retryMs: number | undefined;

  private constructor(readonly fd: number, readonly ifname: string) {}

  get name(): string {
    return `tap:${this.ifname}`;
  }

  /** Whether the last frame was refused because the interface is not up. */
  get isDown(): boolean {
    return this.#isDown;
  }

  get refusedFrames(): number {
    return this.#refusedFrames;
  }

  get retryMs(): number | undefined {
    return this.#retryMs;
  }

  /**
   * Attaches to a TAP of this process's network namespace.
   *
   * @param options.create Whether to make it if it does not exist. Default: true.
   * @throws {TransportError} with what to do about it.
   */
  static open(ifname: string, options: { readonly create?: boolean } = {}): TapDevice {
    const name = `tap:${ifname}`;
    const existed = interfaceExists(ifname);
    if (!existed && options.create === false) {
      throw new TransportError(name, "connect", "no such network interface", {
        party: "net",
        hint: `make it: ip tuntap add dev ${ifname} mode tap`,
      });
    }
    const fd = libc().open(cString(TUN_PATH), O_RDWR | O_NONBLOCK | O_CLOEXEC, 0);
    if (fd < 0) throw cannotOpen(name, errno());
    if (libc().ioctl(fd, TUNSETIFF, ifreq(ifname, IFF_TAP | IFF_NO_PI)) < 0) {
      const code = errno();
      libc().close(fd);
      throw cannotAttach(name, ifname, existed, code);
    }
    return new TapDevice(fd, ifname);
  }

  send(frame: Uint8Array): boolean {
    const wrote = libc().write(this.fd, frame as Uint8Array<ArrayBuffer>, BigInt(frame.length));
    if (wrote >= 0) {
      this.#isDown = false;
      this.#retryMs = undefined;
      return true;
    }
    const code = errno();
    switch (code) {
      case ERRNO.EIO:
        // The interface is not up. The frame is kept, as the other end of a switch port would keep
        // it.
        this.#isDown = true;
        this.#retryMs = DOWN_RETRY_MS;
        return false;
      case ERRNO.EAGAIN:
      case ERRNO.EINTR:
      case ERRNO.ENOBUFS:
        this.#retryMs = RETRY_MS;
        return false;
      case ERRNO.EINVAL:
        // The kernel refuses the frame itself; trying it again would hold up all others.
        this.#refusedFrames++;
        return true;
      default:
        throw this.#gone("write", code);
    }
  }

  flush(): boolean {
    return true;
  }

  receive(budgetBytes: number, onFrame: (frame: Uint8Array) => void): "more" | "empty" | "end" {
    for (let got = 0; got < budgetBytes;) {
      const count = Number(libc().read(this.fd, this.#buffer, BigInt(READ_BYTES)));
      if (count < 0) {
        const code = errno();
        if (code === ERRNO.EAGAIN || code === ERRNO.EINTR) return "empty";
        throw this.#gone("read", code);
      }
      onFrame(this.#buffer.subarray(0, count));
      got += count;
    }
    return "more";
  }

  close(): void {
    libc().close(this.fd);
  }

  #gone(phase: "read" | "write", code: number): TransportError {
    const vanished = code === ERRNO.EBADFD || code === ERRNO.ENODEV || code === ERRNO.ENXIO;
    return new TransportError(
      this.name,
      phase,
      vanished ? "the interface is gone" : errnoText(code),
      vanished
        ? { party: "net", hint: `make it again: ip tuntap add dev ${this.ifname} mode tap` }
        : {},
    );
  }
}

/** `struct ifreq`: 16 bytes of name, then a union that starts with `i16` flags (or index). */
function ifreq(ifname: string, flags: number): Uint8Array<ArrayBuffer> {
  const request = new Uint8Array(IFREQ_BYTES);
  request.set(new TextEncoder().encode(ifname).subarray(0, IFNAME_BYTES - 1));
  new DataView(request.buffer).setInt16(IFNAME_BYTES, flags, true);
  return request;
}

function cannotOpen(name: string, code: number): TransportError {
  if (code === ERRNO.ENOENT || code === ERRNO.ENODEV || code === ERRNO.ENXIO) {
    return new TransportError(name, "connect", `there is no ${TUN_PATH}`, {
      party: "net",
      hint: "load the driver: modprobe tun (in a container: give it the device)",
    });
  }
  const denied = code === ERRNO.EACCES || code === ERRNO.EPERM;
  return new TransportError(name, "connect", `cannot open ${TUN_PATH}: ${errnoText(code)}`, {
    party: "net",
    hint: denied ? `run as root, or let your user read and write ${TUN_PATH}` : undefined,
  });
}

function cannotAttach(
  name: string,
  ifname: string,
  existed: boolean,
  code: number,
): TransportError {
  const fail = (what: string, hint?: string) =>
    new TransportError(name, "connect", what, { party: "net", hint });
  switch (code) {
    case ERRNO.EPERM:
    case ERRNO.EACCES:
      return existed
        ? fail(
          "permission denied",
          `make it yours: ip tuntap del dev ${ifname} mode tap; ` +
            `ip tuntap add dev ${ifname} mode tap user $USER`,
        )
        : fail(
          "no such interface, and no permission to make it",
          `as root: ip tuntap add dev ${ifname} mode tap user $USER`,
        );
    case ERRNO.EBUSY:
      return fail(
        "another process uses it",
        "one QEMU or one kemari at a time: end the other, or use a TAP of its own",
      );
    case ERRNO.EINVAL:
      return fail(
        existed ? "it is no plain TAP device" : "the system refuses the name",
        existed
          ? `kemari needs a TAP with one queue: ip tuntap add dev ${ifname} mode tap`
          : undefined,
      );
    default:
      return fail(`cannot attach: ${errnoText(code)}`);
  }
}
