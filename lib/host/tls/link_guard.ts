import { getLogger } from "@logtape/logtape";
import { expectedNames, type LinkSecurity, mayBePlain } from "../../decisions/link_security.ts";
import { UsageError } from "../../errors.ts";
import { parsePskFile } from "../../keys/psk_file.ts";
import type { Address } from "../system/address.ts";
import { admitAddress } from "../system/socket.ts";
import type { Reactor } from "../system/reactor.ts";
import { type Descriptors, PlainTransport, type Transport } from "../system/transport.ts";
import { certificateFiles, checkCertificates } from "./certificate_files.ts";
import { checkFile, stampOf } from "./private_file.ts";
import { TlsContext, type TlsRole } from "./tls_context.ts";
import { TlsTransport } from "./tls_transport.ts";

const log = getLogger(["kemari", "tls"]);

const DAY_MS = 24 * 3600 * 1000;
const LOOK_MS = DAY_MS / 4;

/**
 * Sees to it that a link is as private as its command line says. Files are looked at again at each
 * connection, so that a new key, or a renewed certificate, takes no restart.
 */
export class LinkGuard {
  readonly #security: LinkSecurity;
  readonly #role: TlsRole;
  /** Whom the peer's certificate has to name; anybody of the authority's where empty. */
  readonly #names: readonly string[];
  #context: TlsContext | undefined;
  /** What the files were when they were read, and on which day they were looked at last. */
  #stamp = "";
  #day = 0;

  private constructor(security: LinkSecurity, role: TlsRole, names: readonly string[]) {
    this.#security = security;
    this.#role = role;
    this.#names = names;
  }

  /**
   * Reads what there is to read, so that what is wrong with it is said before anything is done.
   *
   * @param address Where a sender connects to, or a receiver listens.
   * @throws {TransportError} Credentials cannot be used, or OpenSSL cannot; {UsageError} a sender does
   *   not know whose certificate to expect.
   */
  static open(security: LinkSecurity, role: TlsRole, address: Address): LinkGuard {
    const guard = new LinkGuard(security, role, namesOf(security, role, address));
    if (security.kind !== "plain") guard.#read();
    return guard;
  }

  /**
   * Lets an address through, of a peer or to listen at.
   *
   * @param ip Its 4 or 16 bytes.
   * @param text The address as the user wrote it.
   * @throws {UsageError} It is another host's, and nothing would protect the link.
   */
  admit(ip: Uint8Array, text: string): void {
    if (mayBePlain(this.#security, ip)) return;
    throw new UsageError(`${text} is reached over a network, and nothing encrypts this link`, {
      hint:
        "give both ends --key FILE (kemari keygen makes one) or --tls-dir DIR; or --plain, where " +
        "nobody else can reach that network",
    });
  }

  /**
   * Lets a target through, by its name, so that the user hears of it before anything is done.
   *
   * @throws {UsageError} as {@link admit}.
   */
  async admitTarget(target: Address, signal: AbortSignal): Promise<void> {
    await admitAddress(target, signal, (ip) => this.admit(ip, target.text));
  }

  /**
   * Makes a connection of descriptors, which are closed with it.
   *
   * @throws {TransportError} Credentials cannot be used by now. The descriptors are closed.
   */
  transport(descriptors: Descriptors): Transport {
    if (this.#security.kind === "plain") return new PlainTransport(descriptors, "peer");
    try {
      return new TlsTransport(descriptors, this.#read(), { names: this.#names });
    } catch (error) {
      descriptors.close();
      throw error;
    }
  }

  /**
   * Looks at the credentials again and again for as long as the reactor runs, since two connections
   * may be months apart: what expires soon, or can be used no longer, is told.
   */
  keepLooking(reactor: Reactor, periodMs = LOOK_MS): void {
    if (this.#security.kind === "plain") return;
    reactor.every(periodMs, () => {
      try {
        this.#read();
      } catch (error) {
        log.warn("no new connection can be made: {reason}", { reason: (error as Error).message });
      }
    });
  }

  /** The credentials as they are now. */
  #read(): TlsContext {
    const security = this.#security;
    if (security.kind === "plain") throw new TypeError("a plain link has no credentials");
    const credentials = security.kind === "key"
      ? keysOf(security.file, this.#role)
      : certificatesOf(security.folder, this.#role);
    const day = Math.floor(Date.now() / DAY_MS);
    const stamp = credentials.files.map(stampOf).join("; ");
    if (this.#context !== undefined && stamp === this.#stamp) {
      if (day !== this.#day) credentials.check();
      this.#day = day;
      return this.#context;
    }
    credentials.check();
    const context = credentials.make();
    if (this.#context !== undefined) {
      log.info("{file} has changed, or a file beside it: read again", {
        file: credentials.files[0],
      });
    }
    this.#context?.free();
    this.#stamp = stamp;
    this.#day = day;
    return this.#context = context;
  }
}

function namesOf(security: LinkSecurity, role: TlsRole, address: Address): readonly string[] {
  if (security.kind !== "certificates") return [];
  if (role === "receiver") return security.names;
  return expectedNames(security, address.kind === "tcp" ? address.host : undefined);
}

/** Credentials, unread. */
interface Credentials {
  readonly files: readonly string[];
  /** Looks at them; what expires soon is told. @throws {TransportError} They cannot be used. */
  check(): void;
  make(): TlsContext;
}

function keysOf(file: string, role: TlsRole): Credentials {
  return {
    files: [file],
    check: () => checkFile(file, true),
    make: () => TlsContext.ofKeys(role, parsePskFile(Deno.readTextFileSync(file), file)),
  };
}

function certificatesOf(folder: string, role: TlsRole): Credentials {
  const files = certificateFiles(folder, role);
  return {
    files: Object.values(files),
    check: () => checkCertificates(files),
    make: () => TlsContext.ofCertificates(role, files),
  };
}
