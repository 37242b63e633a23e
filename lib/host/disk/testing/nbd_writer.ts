/** For tests: an NBD client that writes without waiting for answers. */
import {
  concatenate,
  encodeFullHandshake,
  encodeRequest,
} from "../../../nbd/testing/client_messages.ts";
import { NBD_CMD } from "../../../nbd/wire.ts";

export const BLOCK = 4096;
const ANSWER_BYTES = 16;

export class NbdWriter {
  #heard = 0;

  private constructor(private readonly conn: Deno.Conn) {
    void this.#listen();
  }

  static async connect(path: string, name: string): Promise<NbdWriter> {
    const conn = await Deno.connect({ transport: "unix", path });
    await send(conn, encodeFullHandshake(name));
    const greeting = new Uint8Array(18 + 20 + (20 + 19) + 20 + (20 + 12) + (20 + 14) + 20);
    for (let at = 0; at < greeting.length;) at += (await conn.read(greeting.subarray(at)))!;
    return new NbdWriter(conn);
  }

  /** How many requests were answered. */
  get answered(): number {
    return this.#heard / ANSWER_BYTES;
  }

  /** Sends `count` writes of 4 KiB, from the front on, the i-th full of i + 1. */
  write(count: number): Promise<void> {
    const requests = Array.from({ length: count }, (_, i) =>
      encodeRequest(NBD_CMD.WRITE, {
        offset: i * BLOCK,
        cookie: i,
        data: new Uint8Array(BLOCK).fill(i + 1),
      }));
    return send(this.conn, concatenate(...requests));
  }

  close(): void {
    this.conn.close();
  }

  async #listen(): Promise<void> {
    const bytes = new Uint8Array(4096);
    try {
      for (let read = await this.conn.read(bytes); read; read = await this.conn.read(bytes)) {
        this.#heard += read;
      }
    } catch {
      // Closed at the end of the test.
    }
  }
}

async function send(conn: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await conn.write(bytes.subarray(at));
}
