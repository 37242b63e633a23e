import { StateError } from "../errors.ts";
import type { ExportInfo, Negotiated } from "./export_info.ts";
import { Handshake } from "./handshake.ts";
import { type Extent, type ReadChunk, ReplyWriter } from "./reply_writer.ts";
import { decodeRequest, judgeRequest, type NbdRequest, type RequestFault } from "./request.ts";
import {
  MAX_EXTENTS,
  NBD_CMD,
  NBD_CMD_FLAG,
  type NbdError,
  refuse,
  REQUEST_BYTES,
} from "./wire.ts";

/**
 * Takes requests whose ranges and flags have been checked. Each is answered once, now or later, in
 * any order, by the session's `reply…` method that fits.
 */
export interface RequestVisitor {
  /** Haggling has ended well; requests follow. */
  chosen(negotiated: Negotiated): void;
  /** Answer with `replyRead` or `replyReadChunks`. */
  read(request: NbdRequest): void;
  /** Gives memory of at least this many bytes, in which a write's data is then passed. */
  room(lengthBytes: number): Uint8Array<ArrayBuffer>;
  /**
   * `data` is the front of the memory from {@link room}, and the visitor's from then on; or it is
   * in the session's input, and valid during the call only. Answer with `replyDone`, also for the
   * following methods.
   */
  write(request: NbdRequest, data: Uint8Array): void;
  flush(request: NbdRequest): void;
  trim(request: NbdRequest): void;
  writeZeroes(request: NbdRequest): void;
  cache(request: NbdRequest): void;
  /** Answer with `replyBlockStatus`. */
  blockStatus(request: NbdRequest): void;
  /** Whether one more request may come now; if not, its bytes are left untaken. */
  ready(): boolean;
}

const NOTHING = new Uint8Array(0);

type State = "haggling" | "transmission" | "closed";

/**
 * The server's end of one NBD connection, without I/O or clock.
 *
 * ```text
 * haggling ──EXPORT_NAME, GO──► transmission ──DISC──► closed
 *     └──ABORT──► closed
 * ```
 *
 * A write's data is passed on from the caller's buffer if it is completely in it. Otherwise it is
 * gathered in one buffer of the visitor's, into which the caller may read directly ({@link
 * payloadRoom}): a byte is copied once at the most. The data of a refused write is skipped, however
 * long.
 */
export class NbdServerSession {
  readonly #handshake: Handshake;
  readonly #visitor: RequestVisitor;
  #state: State = "haggling";
  #consumed = 0;
  #negotiated: Negotiated | undefined;
  #writer: ReplyWriter | undefined;
  readonly #inFlight = new Set<NbdRequest>();
  /** The write whose data is arriving. */
  #write: NbdRequest | undefined;
  #fault: RequestFault | undefined;
  #payload: Uint8Array<ArrayBuffer> = NOTHING;
  #payloadBytes = 0;

  /** @param exports The exports to choose from. Their sizes must not change. */
  constructor(exports: readonly ExportInfo[], visitor: RequestVisitor) {
    this.#handshake = new Handshake(exports);
    this.#visitor = visitor;
  }

  /** True once the client has disconnected: write what is left, and close. */
  get closed(): boolean {
    return this.#state === "closed";
  }
  /** What was agreed on; `undefined` while haggling. */
  get negotiated(): Negotiated | undefined {
    return this.#negotiated;
  }
  /** Bytes taken so far. */
  get offset(): number {
    return this.#consumed;
  }
  /** Requests that wait for their answer. */
  get inFlight(): number {
    return this.#inFlight.size;
  }

  /**
   * Takes bytes of the client's.
   *
   * @returns One past the last byte taken; the rest must be presented again, in front of more.
   * @throws {WireError} if the client breaks the protocol: close the connection.
   */
  receive(bytes: Uint8Array, start: number, end: number): number {
    let at = start;
    while (at < end) {
      const next = this.#take(bytes, at, end);
      if (next === at) break;
      this.#consumed += next - at;
      at = next;
    }
    return at;
  }

  /**
   * The memory for the rest of a long write's data: the caller may read from the socket into it,
   * from its front, and then call {@link payloadFilled}. `undefined` if no data is awaited.
   */
  get payloadRoom(): Uint8Array<ArrayBuffer> | undefined {
    if (this.#write === undefined || this.#fault !== undefined) return undefined;
    return this.#payload.subarray(this.#payloadBytes, this.#write.length);
  }

  /** This many bytes were put into {@link payloadRoom}. */
  payloadFilled(lengthBytes: number): void {
    if (this.#write === undefined || this.#payloadBytes + lengthBytes > this.#write.length) {
      throw new StateError("more NBD payload than was awaited");
    }
    this.#consumed += lengthBytes;
    this.#payloadBytes += lengthBytes;
    this.#endPayload();
  }

  /** The client has closed its end. @throws {WireError} `truncated` inside an option or request. */
  finish(unparsedBytes: number): void {
    if (this.closed) return;
    if (unparsedBytes === 0 && this.#write === undefined && this.#handshake.atBoundary) return;
    const what = this.#state === "haggling" ? "an option" : "a request";
    refuse(
      this.#consumed + unparsedBytes,
      "truncated",
      `the client went away inside ${what}`,
    );
  }

  /** Answers with all that was asked for. `data` must not change until it has been written. */
  replyRead(request: NbdRequest, data: Uint8Array): void {
    this.#answered(request, NBD_CMD.READ);
    if (data.length !== request.length) {
      throw new StateError(`${data.length} bytes for a read of ${request.length}`);
    }
    this.#writer!.data(request, data);
  }

  /**
   * Answers with all that was asked for, in order, zeroes as holes. Only if {@link holesAllowed}.
   * The views must not change until they have been written.
   */
  replyReadChunks(request: NbdRequest, chunks: readonly ReadChunk[]): void {
    this.#answered(request, NBD_CMD.READ);
    let sum = 0;
    for (const chunk of chunks) {
      const length = chunk instanceof Uint8Array ? chunk.length : chunk.zeroBytes;
      if (length <= 0) throw new StateError("an empty chunk for a read");
      sum += length;
    }
    if (sum !== request.length) {
      throw new StateError(`chunks of ${sum} bytes for a read of ${request.length}`);
    }
    if (chunks.length > 1 && (request.flags & NBD_CMD_FLAG.DF) !== 0) {
      throw new StateError("several chunks for a read that wants one");
    }
    this.#writer!.chunks(request, chunks);
  }

  /** Whether this read may be answered in several chunks. */
  holesAllowed(request: NbdRequest): boolean {
    return this.#negotiated!.structured && (request.flags & NBD_CMD_FLAG.DF) === 0;
  }

  /** Answers "done", to requests without data in the answer. */
  replyDone(request: NbdRequest): void {
    this.#answered(request);
    if (request.command === NBD_CMD.READ || request.command === NBD_CMD.BLOCK_STATUS) {
      throw new StateError(`command ${request.command} wants data for an answer`);
    }
    this.#writer!.done(request);
  }

  /**
   * Refuses a request, or reports its failure.
   *
   * @param message For people; clients without structured replies see the number only.
   * @param offset The first byte of the export at fault, within the request, if known.
   */
  replyError(request: NbdRequest, error: NbdError, message: string, offset?: number): void {
    this.#answered(request);
    this.#writer!.error(request, error, message, offset);
  }

  /**
   * Extents from the request's offset on: at least one, together no longer than was asked. Equal
   * neighbours are joined; one extent is sent if only one was asked for, else at most 1024.
   */
  replyBlockStatus(request: NbdRequest, extents: readonly Extent[]): void {
    this.#answered(request, NBD_CMD.BLOCK_STATUS);
    const joined: Extent[] = [];
    let left = request.length;
    for (const { lengthBytes, flags } of extents) {
      if (lengthBytes <= 0 || lengthBytes > left) {
        throw new StateError(`an extent of ${lengthBytes} bytes where ${left} were asked about`);
      }
      left -= lengthBytes;
      const last = joined.at(-1);
      if (last?.flags === flags) {
        joined[joined.length - 1] = { flags, lengthBytes: last.lengthBytes + lengthBytes };
      } else joined.push({ lengthBytes, flags });
    }
    if (joined.length === 0) throw new StateError("no extent for a block status");
    const most = (request.flags & NBD_CMD_FLAG.REQ_ONE) !== 0 ? 1 : MAX_EXTENTS;
    this.#writer!.blockStatus(request, joined.slice(0, most));
  }

  /** Takes what is to be written, in order. */
  takeOutput(): Uint8Array[] {
    const output = this.#handshake.takeOutput();
    if (this.#writer === undefined) return output;
    const replies = this.#writer.takeOutput();
    return output.length === 0 ? replies : [...output, ...replies];
  }

  #take(bytes: Uint8Array, at: number, end: number): number {
    switch (this.#state) {
      case "haggling": {
        const next = this.#handshake.take(bytes, at, end, this.#consumed);
        if (this.#handshake.aborted) this.#state = "closed";
        const chosen = this.#handshake.chosen;
        if (chosen !== undefined) {
          this.#state = "transmission";
          this.#negotiated = chosen;
          this.#writer = new ReplyWriter(chosen.structured);
          this.#visitor.chosen(chosen);
        }
        return next;
      }
      case "transmission":
        return this.#write === undefined
          ? this.#request(bytes, at, end)
          : this.#gather(bytes, at, end);
      case "closed":
        // The client must send nothing now; if it does, the bytes are ignored.
        return end;
    }
  }

  #request(bytes: Uint8Array, at: number, end: number): number {
    const body = at + REQUEST_BYTES;
    if (body > end || !this.#visitor.ready()) return at;
    const request = decodeRequest(bytes, at, this.#consumed);
    if (request.command === NBD_CMD.DISC) {
      this.#state = "closed";
      return body;
    }
    const fault = judgeRequest(request, this.#negotiated!);
    if (request.command !== NBD_CMD.WRITE || request.length === 0) {
      this.#inFlight.add(request);
      if (fault !== undefined) this.replyError(request, fault.error, fault.message);
      else this.#visit(request);
      return body;
    }
    if (fault === undefined && end - body >= request.length) {
      this.#inFlight.add(request);
      this.#visitor.write(request, bytes.subarray(body, body + request.length));
      return body + request.length;
    }
    this.#write = request;
    this.#fault = fault;
    this.#payloadBytes = 0;
    if (fault === undefined) this.#payload = this.#visitor.room(request.length);
    return body;
  }

  #visit(request: NbdRequest): void {
    const visitor = this.#visitor;
    switch (request.command) {
      case NBD_CMD.READ:
        return visitor.read(request);
      case NBD_CMD.FLUSH:
        return visitor.flush(request);
      case NBD_CMD.TRIM:
        return visitor.trim(request);
      case NBD_CMD.CACHE:
        return visitor.cache(request);
      case NBD_CMD.WRITE_ZEROES:
        return visitor.writeZeroes(request);
      case NBD_CMD.BLOCK_STATUS:
        return visitor.blockStatus(request);
      default:
        throw new StateError(`NBD command ${request.command} was judged to be known`);
    }
  }

  #gather(bytes: Uint8Array, at: number, end: number): number {
    const pieceEnd = Math.min(end, at + this.#write!.length - this.#payloadBytes);
    if (this.#fault === undefined) {
      this.#payload.set(bytes.subarray(at, pieceEnd), this.#payloadBytes);
    }
    this.#payloadBytes += pieceEnd - at;
    this.#endPayload();
    return pieceEnd;
  }

  #endPayload(): void {
    const request = this.#write!;
    if (this.#payloadBytes < request.length) return;
    const fault = this.#fault;
    const data = this.#payload.subarray(0, request.length);
    this.#write = undefined;
    this.#fault = undefined;
    this.#payload = NOTHING;
    this.#inFlight.add(request);
    if (fault !== undefined) this.replyError(request, fault.error, fault.message);
    else this.#visitor.write(request, data);
  }

  #answered(request: NbdRequest, command?: number): void {
    if (!this.#inFlight.delete(request)) {
      throw new StateError("an NBD request that was answered before, or is another connection's");
    }
    if (command !== undefined && request.command !== command) {
      throw new StateError(`the answer to command ${command} for command ${request.command}`);
    }
  }
}
