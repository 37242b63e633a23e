import { type KemariError, TransportError, WireError } from "../../errors.ts";
import type { ExportInfo, Negotiated } from "../../nbd/export_info.ts";
import type { Extent } from "../../nbd/reply_writer.ts";
import type { NbdRequest } from "../../nbd/request.ts";
import { NbdServerSession, type RequestVisitor } from "../../nbd/server_session.ts";
import { MAX_EXTENTS, NBD_CMD_FLAG, NBD_ERROR } from "../../nbd/wire.ts";
import type { Done } from "../../replica/events/done.ts";
import type { BlockBackend } from "../image/block_backend.ts";
import { OutputQueue, readSome } from "../system/channel.ts";
import { libc } from "../system/libc.ts";
import { aroundZeroes, nbdErrorOf } from "./nbd_answers.ts";
import type { Reactor, Watch } from "../system/reactor.ts";
import type { ReplyBuffers } from "./reply_buffers.ts";
import { SO_SNDBUF, SO_SNDBUFFORCE, SOL_SOCKET } from "../system/linux.ts";

/** Counters of an export, over all its clients. */
export interface NbdCounters {
  connections: number;
  requests: number;
  readBytes: number;
  writtenBytes: number;
  flushes: number;
  /** Requests that the disk failed; requests refused for their form are not counted. */
  failures: number;
}

/** An export as the server keeps it. */
export interface ServedExport {
  readonly info: ExportInfo;
  readonly backend: BlockBackend;
  readonly counters: NbdCounters;
}

/** The part of the server that a connection needs. */
export interface ConnectionHost {
  readonly reactor: Reactor;
  readonly buffers: ReplyBuffers;
  readonly infos: readonly ExportInfo[];
  /** Bytes of answers that may wait for one client; beyond that none of its requests is taken. */
  readonly mostPendingBytes: number;
  exportOf(info: ExportInfo): ServedExport;
  /** The connection has ended. `error`: why, if it did not end well. */
  ended(connection: NbdConnection, error?: KemariError): void;
  /** A disk could not carry out a client's request. */
  failed(served: ServedExport, error: TransportError): void;
}

const INPUT_BYTES = 256 * 1024;
/**
 * The socket's buffer: large enough for some long answers, so that the next one is read from the
 * disk while the client takes these (measured with nbdcopy: a fifth more throughput than with 208
 * KiB). Only root may exceed the system's limit.
 */
const SOCKET_BYTES = 1024 * 1024;
/** Bytes of answers that are gathered before they are written. */
const FLUSH_BYTES = 256 * 1024;
/**
 * From this length on, a write's data is read right into its place, and what a read returns is
 * searched for zeroes.
 */
const LONG_BYTES = 64 * 1024;
/** How much of a long write's data is read along with its header, and copied. */
const SHORT_READ_BYTES = 4096;
/** How often one socket is read before the others get their turn. */
const READS_PER_TURN = 32;

/** One client. Its errors end this connection only. */
export class NbdConnection implements RequestVisitor {
  readonly #host: ConnectionHost;
  readonly #fd: number;
  readonly #watch: Watch;
  readonly #session: NbdServerSession;
  readonly #output: OutputQueue;
  readonly #input = new Uint8Array(INPUT_BYTES);
  #start = 0;
  #end = 0;
  #longWrites = false;
  #served: ServedExport | undefined;
  /** Buffers that are being written; each is free when the queue has written up to `until`. */
  #lent: { until: number; buffer: Uint8Array<ArrayBuffer> }[] = [];
  #ended = false;
  #speaks = false;

  /** @param fd Non-blocking; this object closes it. @param name For messages. */
  constructor(fd: number, readonly name: string, host: ConnectionHost) {
    this.#fd = fd;
    this.#host = host;
    this.#session = new NbdServerSession(host.infos, this);
    this.#output = new OutputQueue(fd, name, "disk");
    const size = new Uint8Array(new Uint32Array([SOCKET_BYTES]).buffer);
    if (libc().setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, size, size.length) < 0) {
      libc().setsockopt(fd, SOL_SOCKET, SO_SNDBUF, size, size.length);
    }
    this.#watch = host.reactor.watch(fd, {
      readable: () => this.#guard(() => this.#receive()),
      writable: () => this.#guard(() => this.#parse()),
    });
  }

  /** Greets the client. */
  start(): void {
    this.#guard(() => {});
  }

  /** What the client has chosen, once it has. */
  get served(): ServedExport | undefined {
    return this.#served;
  }

  /** Checks again whether requests may be taken. */
  resume(): void {
    this.#guard(() => this.#parse());
  }

  /** Ends the connection at once. */
  close(error?: KemariError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#watch.stop();
    libc().close(this.#fd);
    this.#lent = [];
    if (this.#served !== undefined) this.#served.counters.connections--;
    this.#host.ended(this, error);
  }

  chosen({ export: info }: Negotiated): void {
    this.#served = this.#host.exportOf(info);
    this.#served.counters.connections++;
  }

  ready(): boolean {
    return this.#output.pendingBytes < this.#host.mostPendingBytes &&
      (this.#served!.backend.ready?.() ?? true);
  }

  room(lengthBytes: number): Uint8Array<ArrayBuffer> {
    return this.#host.buffers.take(lengthBytes);
  }

  read(request: NbdRequest): void {
    const { length, offset } = request;
    const buffer = this.#host.buffers.take(length);
    const data = buffer.subarray(0, length);
    this.#longWrites = false;
    this.#serve(request, (backend, done) => backend.read(data, offset, done), (error) => {
      // A buffer for a client that is gone is not in the queue.
      if (this.#ended || error !== undefined) return this.#host.buffers.giveBack(buffer);
      const chunks = length >= LONG_BYTES && this.#session.holesAllowed(request)
        ? aroundZeroes(data)
        : undefined;
      if (chunks === undefined) this.#session.replyRead(request, data);
      else this.#session.replyReadChunks(request, chunks);
      this.#served!.counters.readBytes += length;
      this.#output.push(this.#session.takeOutput());
      this.#lent.push({ until: this.#output.queued, buffer });
      if (this.#output.pendingBytes >= FLUSH_BYTES) this.#flush();
    });
  }

  write(request: NbdRequest, data: Uint8Array): void {
    this.#longWrites = request.length >= LONG_BYTES;
    let kept = data as Uint8Array<ArrayBuffer>;
    // The next read overwrites these bytes.
    if (data.buffer === this.#input.buffer) {
      kept = this.room(data.length).subarray(0, data.length);
      kept.set(data);
    }
    const act = (backend: BlockBackend, done: Done) =>
      backend.write(kept, request.offset, isFua(request), done);
    this.#serve(request, act, (error) => {
      this.#host.buffers.giveBack(new Uint8Array(kept.buffer));
      if (error !== undefined || this.#ended) return;
      this.#served!.counters.writtenBytes += data.length;
      this.#session.replyDone(request);
    });
  }

  flush(request: NbdRequest): void {
    this.#serve(request, (backend, done) => backend.flush(done), (error) => {
      if (error !== undefined || this.#ended) return;
      this.#served!.counters.flushes++;
      this.#session.replyDone(request);
    });
  }

  trim(request: NbdRequest): void {
    this.#serve(
      request,
      (backend, done) => backend.trim(request.offset, request.length, isFua(request), done),
      this.#sayDone(request),
    );
  }

  writeZeroes(request: NbdRequest): void {
    const options = {
      fua: isFua(request),
      mayUnmap: (request.flags & NBD_CMD_FLAG.NO_HOLE) === 0,
      fast: (request.flags & NBD_CMD_FLAG.FAST_ZERO) !== 0,
    };
    this.#serve(
      request,
      (backend, done) => backend.zero(request.offset, request.length, options, done),
      this.#sayDone(request),
    );
  }

  cache(request: NbdRequest): void {
    this.#serve(request, (backend, done) => {
      backend.prefetch?.(request.offset, request.length);
      done();
    }, this.#sayDone(request));
  }

  blockStatus(request: NbdRequest): void {
    let found: readonly Extent[] = [];
    this.#serve(request, (backend, done) => {
      const most = (request.flags & NBD_CMD_FLAG.REQ_ONE) !== 0 ? 1 : MAX_EXTENTS;
      backend.status(request.offset, request.length, most, (extents, error) => {
        found = extents;
        done(error);
      });
    }, (error) => {
      if (error !== undefined || this.#ended) return;
      this.#session.replyBlockStatus(request, found);
    });
  }

  #sayDone(request: NbdRequest): Done {
    return (error) => {
      if (error === undefined && !this.#ended) this.#session.replyDone(request);
    };
  }

  /**
   * Has the disk act, at once or later. If the disk fails, the client and the operator are told.
   *
   * @param answer Called in the end, also if the client is gone by then: gives memory back, and
   *   answers if the client is there and nothing has failed.
   */
  #serve(
    request: NbdRequest,
    act: (backend: BlockBackend, done: Done) => void,
    answer: Done,
  ): void {
    const served = this.#served!;
    served.counters.requests++;
    let isAtOnce = true;
    const finish = (error?: Error) => {
      answer(error);
      if (this.#ended) return;
      if (error !== undefined) this.#sayFailure(request, served, error);
      this.#output.push(this.#session.takeOutput());
    };
    act(served.backend, (error) => {
      if (isAtOnce) return finish(error);
      this.#attempt(() => finish(error));
      this.#speakSoon();
    });
    isAtOnce = false;
  }

  #sayFailure(request: NbdRequest, served: ServedExport, error: Error): void {
    if (!(error instanceof TransportError)) throw error;
    const code = nbdErrorOf(error);
    this.#session.replyError(request, code, error.message);
    // A refusal that the client has asked for is no failure.
    if (code === NBD_ERROR.ENOTSUP) return;
    served.counters.failures++;
    this.#host.failed(served, error);
  }

  /** Writes the answers when all requests of this moment are answered. */
  #speakSoon(): void {
    if (this.#speaks || this.#ended) return;
    this.#speaks = true;
    this.#host.reactor.after(0, () => {
      this.#speaks = false;
      this.#guard(() => this.#parse());
    });
  }

  #receive(): void {
    for (let i = 0; i < READS_PER_TURN && this.#wantsInput(); i++) {
      const room = this.#session.payloadRoom;
      const target = room ?? this.#inputRoom();
      const count = readSome(this.#fd, target, this.name, "disk");
      if (count === undefined) return;
      if (count === 0) return this.#endOfInput();
      if (room === undefined) this.#end += count;
      else this.#session.payloadFilled(count);
      this.#parse();
      if (count < target.length) return;
    }
  }

  #inputRoom(): Uint8Array<ArrayBuffer> {
    if (this.#start === this.#end) this.#start = this.#end = 0;
    else if (this.#end > INPUT_BYTES / 2) {
      this.#input.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    const most = this.#longWrites ? this.#end + SHORT_READ_BYTES : INPUT_BYTES;
    return this.#input.subarray(this.#end, Math.min(most, INPUT_BYTES));
  }

  #wantsInput(): boolean {
    return !this.#session.closed && this.#end - this.#start < INPUT_BYTES &&
      (this.#served === undefined || this.ready());
  }

  /** Serves the requests that have been read, and writes the answers. */
  #parse(): void {
    for (;;) {
      this.#start = this.#session.receive(this.#input, this.#start, this.#end);
      this.#output.push(this.#session.takeOutput());
      const blocked = this.#served !== undefined && !this.ready();
      // Requests that waited for room in the queue go on as soon as there is some.
      if (!this.#flush() || !blocked || !this.ready()) return;
    }
  }

  #flush(): boolean {
    const idle = this.#output.flush();
    let free = 0;
    while (free < this.#lent.length && this.#lent[free].until <= this.#output.written) {
      this.#host.buffers.giveBack(this.#lent[free++].buffer);
    }
    if (free > 0) this.#lent.splice(0, free);
    return idle;
  }

  #endOfInput(): void {
    this.#session.finish(this.#end - this.#start);
    // A client may go without a word: nothing that it was promised is lost.
    this.close();
  }

  /** Acts, then sets what to wait for; errors of the client end its connection. */
  #guard(act: () => void): void {
    if (this.#ended) return;
    this.#attempt(() => {
      act();
      if (this.#ended) return;
      this.#output.push(this.#session.takeOutput());
      const idle = this.#flush();
      if (this.#session.closed && idle && this.#session.inFlight === 0) return this.close();
      this.#watch.want(this.#wantsInput(), !idle);
    });
  }

  #attempt(act: () => void): void {
    try {
      act();
    } catch (error) {
      if (!(error instanceof WireError || error instanceof TransportError)) throw error;
      this.close(error);
    }
  }
}

function isFua(request: NbdRequest): boolean {
  return (request.flags & NBD_CMD_FLAG.FUA) !== 0;
}
