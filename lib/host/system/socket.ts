/** Raw sockets, non-blocking: addresses, connecting, listening. */
import { lookup } from "node:dns/promises";
import { type Party, TransportError, type TransportPhase } from "../../errors.ts";
import type { Address } from "./address.ts";
import { cString, errno, errnoText, libc } from "./libc.ts";
import {
  AF_INET,
  AF_INET6,
  AF_UNIX,
  ERRNO,
  IPPROTO_TCP,
  SO_ERROR,
  SO_REUSEADDR,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_SOCKET,
  TCP_NODELAY,
} from "./linux.ts";
import type { Reactor } from "./reactor.ts";
import {
  type BoundAddress,
  ipv4Sockaddr,
  ipv6Sockaddr,
  parseIpv6,
  readSockaddr,
} from "./sockaddr.ts";

/** How many connections may wait to be accepted: beyond that, a Unix socket refuses with EAGAIN. */
const LISTEN_QUEUE = 1024;
const ONE = new Uint8Array([1, 0, 0, 0]);

export type SocketAddress = Extract<Address, { kind: "tcp" | "unix" }>;

/** Throws where an IP address, of 4 or 16 bytes, is not to be connected to or listened at. */
export type AdmitIp = (ip: Uint8Array) => void;

interface Resolved {
  readonly family: number;
  /** 4 or 16 bytes; a Unix socket has none. */
  readonly ip?: Uint8Array;
  readonly sockaddr: Uint8Array<ArrayBuffer>;
}

/** The addresses as the system wants them, best first; a host name is looked up. */
async function resolve(
  address: SocketAddress,
  signal: AbortSignal,
  party: Party,
): Promise<Resolved[]> {
  if (address.kind === "unix") {
    const path = cString(address.path);
    const sockaddr = new Uint8Array(2 + path.length);
    new DataView(sockaddr.buffer).setUint16(0, AF_UNIX, true);
    sockaddr.set(path, 2);
    return [{ family: AF_UNIX, sockaddr }];
  }
  let found: readonly LookedUp[];
  try {
    found = await unlessAborted(lookup(address.host, { all: true }), signal);
  } catch (cause) {
    signal.throwIfAborted();
    throw new TransportError(address.text, "resolve", `no such host: ${address.host}`, {
      hint: "check the name, or give the IP address",
      party,
      cause,
    });
  }
  return reachable(found, address, party);
}

/** An address as a name server gives it, or as its text says. */
interface LookedUp {
  readonly address: string;
  readonly family: number;
}

/**
 * A name's address as the system wants it. A link-local address exists on every link: it means
 * nothing without its interface, which no name server knows.
 *
 * @throws {TransportError} there is no such interface, or a link-local address is given without its
 *   interface.
 */
function reachable(
  found: readonly LookedUp[],
  { host, port, text }: Extract<SocketAddress, { kind: "tcp" }>,
  party: Party,
): Resolved[] {
  const resolved: Resolved[] = [];
  for (const { address, family } of found) {
    if (family !== 6) {
      const sockaddr = ipv4Sockaddr(address, port);
      resolved.push({ family: AF_INET, ip: sockaddr.subarray(4, 8), sockaddr });
      continue;
    }
    const [plain, zone] = address.split("%", 2);
    const bytes = parseIpv6(plain);
    const isLinkLocal = bytes[0] === 0xfe && (bytes[1] & 0xc0) === 0x80;
    if (isLinkLocal && zone === undefined) continue;
    const scope = zone === undefined ? 0 : interfaceIndex(zone);
    if (scope === undefined) {
      throw new TransportError(text, "resolve", `there is no network interface "${zone}"`, {
        hint: "name one of this host's, see `ip link`, by its name or its number",
        party,
      });
    }
    resolved.push({ family: AF_INET6, ip: bytes, sockaddr: ipv6Sockaddr(bytes, port, scope) });
  }
  if (resolved.length > 0) return resolved;
  throw new TransportError(text, "resolve", `${host} is link-local: on which link is not said`, {
    hint: `write the interface of this host behind it: [${found[0].address}%eth0]:${port}`,
    party,
  });
}

/**
 * The number of a network interface; undefined if there is no such interface in this host's (or
 * namespace's) network.
 */
function interfaceIndex(zone: string): number | undefined {
  const index = libc().if_nametoindex(cString(zone));
  if (index !== 0) return index;
  if (!/^[1-9]\d{0,8}$/.test(zone)) return undefined;
  return libc().if_indextoname(Number(zone), new Uint8Array(16)) === null
    ? undefined
    : Number(zone);
}

/**
 * Asks of every address that a host's name stands for, before anything is done there. A name that
 * cannot be looked up yet is asked of when it is connected to.
 *
 * @throws what `admit` throws.
 */
export async function admitAddress(
  address: Address,
  signal: AbortSignal,
  admit: AdmitIp,
): Promise<void> {
  if (address.kind !== "tcp") return;
  const found = await resolve(address, signal, "host").catch(() => []);
  signal.throwIfAborted();
  for (const { ip } of found) if (ip !== undefined) admit(ip);
}

/** Looks a name up. A name server may not answer for long; the signal ends the wait. */
function unlessAborted<T>(task: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort);
    task.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

function open(family: number, text: string, phase: TransportPhase): number {
  const fd = libc().socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) throw new TransportError(text, phase, `no socket: ${errnoText(errno())}`);
  return fd;
}

function setNoDelay(fd: number): void {
  // Fails on Unix sockets, where it is not needed.
  libc().setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, ONE, 4);
}

/**
 * Connects; where a name has several addresses, to the first that answers. Each has a share of the
 * time of its own, so that an address that does not answer leaves time for the others.
 *
 * @param party Whose the other end is, for errors.
 * @param admit Asked of every address before any is connected to.
 * @returns A non-blocking descriptor that the caller owns.
 * @throws {TransportError} with a hint, also after `timeoutMs` without an answer.
 */
export async function connectSocket(
  address: SocketAddress,
  reactor: Reactor,
  timeoutMs: number,
  signal: AbortSignal,
  party: Party = "host",
  admit: AdmitIp = () => {},
): Promise<number> {
  const deadline = performance.now() + timeoutMs;
  let code: number = ERRNO.ETIMEDOUT;
  const targets = await resolve(address, signal, party);
  for (const { ip } of targets) if (ip !== undefined) admit(ip);
  for (const [i, target] of targets.entries()) {
    const now = performance.now();
    const share = now + (deadline - now) / (targets.length - i);
    const fd = open(target.family, address.text, "connect");
    try {
      code = await connectOne(fd, target, reactor, share, signal);
    } catch (error) {
      libc().close(fd);
      throw error;
    }
    if (code === 0) {
      setNoDelay(fd);
      return fd;
    }
    libc().close(fd);
  }
  throw new TransportError(address.text, "connect", `cannot connect: ${errnoText(code)}`, {
    hint: "is `kemari recv` running there, and does its address match?",
    party,
    cause: code,
  });
}

/** How long to wait before a Unix socket whose queue of connections is full is tried again. */
const FULL_QUEUE_MS = 20;

/** @returns 0, or the error number. */
async function connectOne(
  fd: number,
  { family, sockaddr }: Resolved,
  reactor: Reactor,
  deadline: number,
  signal: AbortSignal,
): Promise<number> {
  for (;;) {
    const code = libc().connect(fd, sockaddr, sockaddr.length) < 0 ? errno() : 0;
    const leftMs = deadline - performance.now();
    if (code === ERRNO.EINPROGRESS) {
      return await writableWithin(fd, leftMs, reactor, signal) ? socketError(fd) : ERRNO.ETIMEDOUT;
    }
    // Unlike TCP, a Unix socket does not go on connecting in the background.
    if (code !== ERRNO.EAGAIN || family !== AF_UNIX) return code;
    if (leftMs < FULL_QUEUE_MS) return ERRNO.ETIMEDOUT;
    await reactor.sleep(FULL_QUEUE_MS, signal);
  }
}

async function writableWithin(
  fd: number,
  timeoutMs: number,
  reactor: Reactor,
  signal: AbortSignal,
): Promise<boolean> {
  let done = false;
  let timedOut = false;
  const watch = reactor.watch(fd, { writable: () => done = true });
  watch.want(false, true);
  const cancel = reactor.after(timeoutMs, () => timedOut = true);
  try {
    await reactor.run(() => done || timedOut, signal);
  } finally {
    cancel();
    watch.stop();
  }
  return done;
}

function socketError(fd: number): number {
  const value = new Int32Array(1);
  libc().getsockopt(
    fd,
    SOL_SOCKET,
    SO_ERROR,
    new Uint8Array(value.buffer),
    new Uint8Array(new Uint32Array([4]).buffer),
  );
  return value[0];
}

/** A listening socket. */
export interface Listener {
  readonly fd: number;
  /** The address with the port that the system chose, where port 0 was asked for. */
  readonly text: string;
  /** The IP address and port that it is bound to; a Unix socket has none. */
  readonly bound: BoundAddress | undefined;
  /** Accepts a connection; `undefined` if none waits. */
  accept(): number | undefined;
  /** Closes, and removes the socket's file. */
  close(): void;
}

/**
 * Listens.
 *
 * A Unix socket left by a process that is gone is replaced; one that answers is not.
 *
 * @param admit Asked of the address first.
 * @param mode Who may use a Unix socket, as `chmod` has it, whatever the umask; the umask decides by
 *   default.
 * @throws {TransportError}
 */
export async function listenSocket(
  address: SocketAddress,
  reactor: Reactor,
  signal: AbortSignal,
  admit: AdmitIp = () => {},
  mode?: number,
): Promise<Listener> {
  const [{ family, ip, sockaddr }] = await resolve(address, signal, "host");
  if (ip !== undefined) admit(ip);
  const fd = open(family, address.text, "listen");
  const fail = (code: number, hint?: string): never => {
    libc().close(fd);
    throw new TransportError(address.text, "listen", `cannot listen: ${errnoText(code)}`, { hint });
  };
  if (family !== AF_UNIX) libc().setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, ONE, 4);
  let code = libc().bind(fd, sockaddr, sockaddr.length) < 0 ? errno() : 0;
  if (code === ERRNO.EADDRINUSE && address.kind === "unix") {
    if (await answers(address, reactor, signal)) fail(code, "another process listens there");
    if (!isSocket(address.path)) fail(code, "there is a file of that name, and it is no socket");
    Deno.removeSync(address.path);
    code = libc().bind(fd, sockaddr, sockaddr.length) < 0 ? errno() : 0;
  }
  if (code !== 0) fail(code, code === ERRNO.EADDRINUSE ? "choose another port" : undefined);
  // Nobody can connect before the socket listens.
  if (mode !== undefined && address.kind === "unix") Deno.chmodSync(address.path, mode);
  if (libc().listen(fd, LISTEN_QUEUE) < 0) fail(errno());
  const bound = boundAddress(fd);
  return {
    fd,
    text: address.kind === "unix" ? address.text : `${bracket(address.host)}:${bound?.port}`,
    bound,
    accept() {
      const none = new Uint8Array(128);
      const size = new Uint8Array(new Uint32Array([128]).buffer);
      const peer = libc().accept4(fd, none, size, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (peer < 0) return undefined;
      setNoDelay(peer);
      return peer;
    },
    close() {
      libc().close(fd);
      if (address.kind !== "unix") return;
      try {
        Deno.removeSync(address.path);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    },
  };
}

function bracket(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}

/** Where a socket listens; undefined for a Unix socket. */
function boundAddress(fd: number): BoundAddress | undefined {
  const sockaddr = new Uint8Array(128);
  libc().getsockname(fd, sockaddr, new Uint8Array(new Uint32Array([128]).buffer));
  return readSockaddr(sockaddr);
}

function isSocket(path: string): boolean {
  try {
    return Deno.statSync(path).isSocket === true;
  } catch {
    return false;
  }
}

async function answers(
  address: SocketAddress,
  reactor: Reactor,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    libc().close(await connectSocket(address, reactor, 1000, signal));
    return true;
  } catch {
    return false;
  }
}
