import type { PresharedKey } from "../../keys/psk_file.ts";
import type { Descriptors, Transport } from "../system/transport.ts";
import { TlsContext } from "./tls_context.ts";
import { TlsTransport } from "./tls_transport.ts";

/**
 * Makes an encrypted connection from a sender's descriptors, with a key for this session only.
 *
 * @param descriptors Closed together with the connection; at once if there is an error.
 * @throws {TransportError} OpenSSL cannot be used.
 */
export function sessionTransport(descriptors: Descriptors, key: PresharedKey): Transport {
  let context: TlsContext | undefined;
  try {
    context = TlsContext.ofSessionKey(key);
    return new TlsTransport(descriptors, context);
  } catch (error) {
    descriptors.close();
    throw error;
  } finally {
    context?.free();
  }
}
