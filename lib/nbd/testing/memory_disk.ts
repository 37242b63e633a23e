import type { Negotiated } from "../export_info.ts";
import type { NbdRequest } from "../request.ts";
import type { NbdServerSession, RequestVisitor } from "../server_session.ts";
import { NBD_STATE_ZERO } from "../wire.ts";

/** Answers a session's requests at once out of memory: the smallest server there is. */
export class MemoryDisk implements RequestVisitor {
  readonly content: Uint8Array;
  readonly log: string[] = [];
  /** Set when the session exists, whose constructor needs this visitor. */
  session!: NbdServerSession;
  negotiated: Negotiated | undefined;
  /** How many more requests it takes. */
  welcome = Infinity;

  constructor(sizeBytes: number) {
    this.content = new Uint8Array(sizeBytes);
  }

  chosen(negotiated: Negotiated): void {
    this.negotiated = negotiated;
  }
  ready(): boolean {
    return this.welcome > 0;
  }
  room(lengthBytes: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(lengthBytes);
  }
  read(request: NbdRequest): void {
    this.#note("read", request);
    const data = this.content.slice(request.offset, request.offset + request.length);
    this.session.replyRead(request, data);
  }
  write(request: NbdRequest, data: Uint8Array): void {
    this.#note("write", request);
    this.content.set(data, request.offset);
    this.session.replyDone(request);
  }
  flush(request: NbdRequest): void {
    this.#note("flush", request);
    this.session.replyDone(request);
  }
  trim(request: NbdRequest): void {
    this.#note("trim", request);
    this.session.replyDone(request);
  }
  writeZeroes(request: NbdRequest): void {
    this.#note("zero", request);
    this.content.fill(0, request.offset, request.offset + request.length);
    this.session.replyDone(request);
  }
  cache(request: NbdRequest): void {
    this.#note("cache", request);
    this.session.replyDone(request);
  }
  blockStatus(request: NbdRequest): void {
    this.#note("status", request);
    const extents = [];
    for (let i = 0; i < request.length; i++) {
      const flags = this.content[request.offset + i] === 0 ? NBD_STATE_ZERO : 0;
      extents.push({ lengthBytes: 1, flags });
    }
    this.session.replyBlockStatus(request, extents);
  }

  #note(what: string, { offset, length, flags }: NbdRequest): void {
    this.welcome--;
    this.log.push(`${what} ${offset}+${length}${flags === 0 ? "" : ` flags ${flags}`}`);
  }
}
