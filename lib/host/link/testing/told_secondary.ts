/** For tests: a secondary that ends its session with what it is told to say. */
import { Carry } from "../../../bytes/carry.ts";
import { Replica } from "../../../replica/secondary/replica.ts";
import { Secondary } from "../../../replica/secondary/secondary.ts";
import type { NackReason } from "../../../txn/wire.ts";

/** Listens on a Unix socket for one sender. */
export class ToldSecondary implements AsyncDisposable {
  readonly replica = new Replica(2 ** 30);
  readonly #secondary: Secondary;
  readonly #listener: Deno.Listener;
  #hasRefused = false;
  readonly #sender = Promise.withResolvers<Deno.Conn>();
  /** Done when the sender has closed its connection. */
  readonly ended: Promise<void>;

  constructor(path: string) {
    const counters = { committed: 0, pages: 0, zeroPages: 0, payloadBytes: 0, lastPayloadBytes: 0 };
    const config = {
      heartbeatMs: 200,
      graceMs: 60_000,
      maxTransactionBytes: 2 ** 30,
      committed: 0,
      software: "test",
    };
    const clock = () => performance.now();
    this.#secondary = new Secondary(this.replica, counters, config, clock(), clock);
    this.#listener = Deno.listen({ transport: "unix", path });
    this.ended = this.#serve();
  }

  /** Refuses whatever there is, and says no more. */
  async refuse(reason: NackReason): Promise<void> {
    this.#hasRefused = true;
    this.#secondary.refuse(new Error("told to"), reason);
    await this.#say(await this.#sender.promise);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    await this.ended.catch(() => {});
  }

  async #serve(): Promise<void> {
    using sender = await this.#listener.accept();
    this.#sender.resolve(sender);
    const carry = new Carry();
    const buffer = new Uint8Array(65536);
    for (;;) {
      const count = await sender.read(buffer);
      if (count === null) return;
      if (this.#hasRefused) continue;
      carry.feed(buffer, 0, count, (bytes, start, end) => {
        return this.#secondary.receive(bytes, start, end, performance.now());
      });
      await this.#say(sender);
    }
  }

  async #say(sender: Deno.Conn): Promise<void> {
    for (const bytes of this.#secondary.takeOutput()) {
      for (let at = 0; at < bytes.length;) at += await sender.write(bytes.subarray(at));
    }
  }
}
