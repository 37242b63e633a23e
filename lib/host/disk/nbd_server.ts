import { type KemariError, StateError, type TransportError, UsageError } from "../../errors.ts";
import type { ExportInfo } from "../../nbd/export_info.ts";
import { MAX_STRING_BYTES } from "../../nbd/wire.ts";
import type { Address } from "../system/address.ts";
import type { BlockBackend } from "../image/block_backend.ts";
import { libc } from "../system/libc.ts";
import {
  type ConnectionHost,
  NbdConnection,
  type NbdCounters,
  type ServedExport,
} from "./nbd_connection.ts";
import type { Reactor } from "../system/reactor.ts";
import { ReplyBuffers } from "./reply_buffers.ts";
import { type Listener, listenSocket } from "../system/socket.ts";

/** One disk to serve. */
interface NbdExport {
  /** The name by which clients ask for it; if there is only one export, an empty name means it. */
  readonly name: string;
  /** Stays the caller's, who closes it after the server. */
  readonly backend: BlockBackend;
  readonly description?: string;
  /** Offsets and lengths must be multiples of this; 1 if absent. */
  readonly minimumBlockBytes?: number;
}

/** The server's events; none of them ends it. */
interface NbdServerEvents {
  /** A client has gone, in an orderly way or because of `error`. */
  readonly onDisconnect?: (client: string, error: KemariError | undefined) => void;
  /** A disk could not do what a client asked; the client has been told. */
  readonly onFailure?: (exportName: string, error: TransportError) => void;
}

/** Where and what to serve. */
interface NbdServerSettings extends NbdServerEvents {
  readonly address: Extract<Address, { kind: "tcp" | "unix" }>;
  readonly exports: readonly NbdExport[];
  /**
   * Bytes of answers that may wait for one client to read them; beyond that none of its requests is
   * taken. One more answer may come on top. 64 MiB if absent.
   */
  readonly mostPendingBytes?: number;
}

/** The most clients at a time; QEMU needs one, nbdcopy four. */
const MAX_CONNECTIONS = 64;
const KEPT_BUFFER_BYTES = 64 * 1024 * 1024;
const MOST_PENDING_BYTES = 64 * 1024 * 1024;

/** Serves disks over NBD on a reactor, while the reactor runs. */
export class NbdServer implements ConnectionHost {
  readonly buffers = new ReplyBuffers(KEPT_BUFFER_BYTES);
  readonly infos: readonly ExportInfo[];
  readonly mostPendingBytes: number;
  readonly #served = new Map<ExportInfo, ServedExport>();
  readonly #connections = new Set<NbdConnection>();
  #clients = 0;
  #stopListening: (() => void) | undefined;

  private constructor(
    readonly reactor: Reactor,
    readonly listener: Listener,
    readonly settings: NbdServerSettings,
  ) {
    this.mostPendingBytes = settings.mostPendingBytes ?? MOST_PENDING_BYTES;
    for (const { name, backend, description, minimumBlockBytes } of settings.exports) {
      const info: ExportInfo = {
        name,
        sizeBytes: backend.sizeBytes,
        readOnly: backend.readOnly,
        description,
        minimumBlockBytes,
        // Several connections are allowed: all use the same back end, so each sees what the others
        // did.
        multiConn: true,
      };
      const counters = {
        connections: 0,
        requests: 0,
        readBytes: 0,
        writtenBytes: 0,
        flushes: 0,
        failures: 0,
      };
      this.#served.set(info, { info, backend, counters });
    }
    this.infos = [...this.#served.keys()];
    const watch = reactor.watch(listener.fd, { readable: () => this.#accept() });
    watch.want(true, false);
    this.#stopListening = () => watch.stop();
  }

  /** @throws {UsageError} for names that cannot be used. @throws {TransportError} */
  static async listen(
    settings: NbdServerSettings,
    reactor: Reactor,
    signal: AbortSignal,
  ): Promise<NbdServer> {
    const names = new Set<string>();
    for (const { name } of settings.exports) {
      if (names.has(name)) throw new UsageError(`two disks are called "${name}"`);
      if (name.includes("\0") || new TextEncoder().encode(name).length > MAX_STRING_BYTES) {
        throw new UsageError(`"${name}" cannot be a disk's name`);
      }
      names.add(name);
    }
    return new NbdServer(reactor, await listenSocket(settings.address, reactor, signal), settings);
  }

  /** How many clients are connected now. */
  get connections(): number {
    return this.#connections.size;
  }

  /** The counters of one export. */
  countersOf(exportName: string): Readonly<NbdCounters> {
    for (const { info, counters } of this.#served.values()) {
      if (info.name === exportName) return counters;
    }
    throw new StateError(`no export is called ${exportName}`);
  }

  /** To be called when a back end that was not ready is ready again. */
  resume(): void {
    for (const connection of this.#connections) connection.resume();
  }

  /** Drops all clients and removes the socket. Disks stay open, and are not flushed. */
  close(): void {
    if (this.#stopListening === undefined) return;
    this.#stopListening();
    this.#stopListening = undefined;
    this.listener.close();
    for (const connection of this.#connections) connection.close();
  }

  exportOf(info: ExportInfo): ServedExport {
    return this.#served.get(info)!;
  }

  ended(connection: NbdConnection, error?: KemariError): void {
    this.#connections.delete(connection);
    this.settings.onDisconnect?.(connection.name, error);
  }

  failed({ info }: ServedExport, error: TransportError): void {
    this.settings.onFailure?.(info.name, error);
  }

  #accept(): void {
    for (;;) {
      const fd = this.listener.accept();
      if (fd === undefined) return;
      if (this.#connections.size >= MAX_CONNECTIONS) {
        libc().close(fd);
        continue;
      }
      const name = `${this.listener.text} client ${++this.#clients}`;
      const connection = new NbdConnection(fd, name, this);
      this.#connections.add(connection);
      connection.start();
    }
  }
}
