/**
 * OpenSSL's callbacks during handshakes and reads: they ask for the key of a name, and report
 * handshake messages. OpenSSL calls them on our own thread, within a call of ours, so they belong
 * to the connection which made that call.
 */
import { foreignText } from "../../foreign_text.ts";
import { MAX_IDENTITY_BYTES, type PresharedKey } from "../../keys/psk_file.ts";
import { SSL_CB_LOOP } from "./openssl.ts";

/** The connection that made the current call. */
export interface TlsCaller {
  /** A sender's key is the first. */
  readonly keys: readonly PresharedKey[];
  /** The receiver's key of a name. */
  keyOf(identity: string): PresharedKey | undefined;
  /** Notes the key name that a sender has sent; undefined if no key has that name. */
  identified(identity: string, key: PresharedKey | undefined): void;
  /** Notes that a handshake message or a key update has come. */
  stepped(): void;
}

let caller: TlsCaller | undefined;

/** All calls from here to {@link endCalls} are for this connection. */
export function beginCalls(connection: TlsCaller): void {
  caller = connection;
}

export function endCalls(): void {
  caller = undefined;
}

/** The key name that a stranger has sent, which may be any bytes. */
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

/** @returns The key's length; 0 if it does not fit, or there is no current connection. */
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

/** Addresses of the callbacks; they live as long as the process. */
export function tlsCallbacks(): ReturnType<typeof makeCallbacks> {
  return callbacks ??= makeCallbacks();
}
