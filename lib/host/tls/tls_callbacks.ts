/**
 * What OpenSSL asks and tells us while it shakes hands or reads: which key is meant, and that a
 * message of the handshake's kind has come. It calls on our own thread, inside of a call of ours, so
 * that the connection which made that call is the one in question.
 */
import { foreignText } from "../../foreign_text.ts";
import { MAX_IDENTITY_BYTES, type PresharedKey } from "../../keys/psk_file.ts";
import { SSL_CB_LOOP } from "./openssl.ts";

/** The connection that OpenSSL works for during a call. */
export interface TlsCaller {
  /** A sender says the first. */
  readonly keys: readonly PresharedKey[];
  /** The key that a receiver knows by this name. */
  keyOf(identity: string): PresharedKey | undefined;
  /** A sender has said this; undefined is told where no key has that name. */
  identified(identity: string, key: PresharedKey | undefined): void;
  /** The handshake has got further, or a key update has come. */
  stepped(): void;
}

let caller: TlsCaller | undefined;

/** What OpenSSL is called for from here to {@link endCalls} is this connection's. */
export function beginCalls(connection: TlsCaller): void {
  caller = connection;
}

export function endCalls(): void {
  caller = undefined;
}

/** The name that a stranger has said, whatever bytes it is made of. */
function identityAt(said: Deno.PointerObject): string {
  const view = new Deno.UnsafePointerView(said);
  const bytes = new Uint8Array(MAX_IDENTITY_BYTES);
  let length = 0;
  for (; length < bytes.length; length++) {
    bytes[length] = view.getUint8(length);
    if (bytes[length] === 0) break;
  }
  return foreignText(bytes.subarray(0, length), MAX_IDENTITY_BYTES);
}

/** @returns The key's length; 0 where it does not fit, or nobody asks. */
function giveKey(key: PresharedKey | undefined, to: Deno.PointerValue, most: number): number {
  if (key === undefined || to === null || key.key.length > most) return 0;
  new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(to, key.key.length)).set(key.key);
  return key.key.length;
}

function makeCallbacks() {
  const client = new Deno.UnsafeCallback(
    { parameters: ["pointer", "pointer", "pointer", "u32", "pointer", "u32"], result: "u32" },
    (_ssl, _hint, identity, mostIdentity, psk, most) => {
      const key = caller?.keys[0];
      if (key === undefined || identity === null) return 0;
      const name = new TextEncoder().encode(`${key.identity}\0`);
      if (name.length > mostIdentity) return 0;
      new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(identity, name.length)).set(name);
      return giveKey(key, psk, most);
    },
  );
  const server = new Deno.UnsafeCallback(
    { parameters: ["pointer", "pointer", "pointer", "u32"], result: "u32" },
    (_ssl, said, psk, most) => {
      if (said === null || caller === undefined) return 0;
      const identity = identityAt(said);
      const key = caller.keyOf(identity);
      caller.identified(identity, key);
      return giveKey(key, psk, most);
    },
  );
  const info = new Deno.UnsafeCallback(
    { parameters: ["pointer", "i32", "i32"], result: "void" },
    (_ssl, where) => {
      if ((where & SSL_CB_LOOP) !== 0) caller?.stepped();
    },
  );
  return { client: client.pointer, server: server.pointer, info: info.pointer };
}

let callbacks: ReturnType<typeof makeCallbacks> | undefined;

/** Where OpenSSL finds us; for as long as the process lives. */
export function tlsCallbacks(): ReturnType<typeof makeCallbacks> {
  return callbacks ??= makeCallbacks();
}
