import { getLogger } from "@logtape/logtape";
import { expectedNames, type LinkSecurity, listeningAt } from "../../decisions/link_security.ts";
import { UsageError } from "../../errors.ts";
import { parsePskFile } from "../../keys/psk_file.ts";
import type { SessionKeys } from "../../keys/session_keys.ts";
import type { Address } from "../system/address.ts";
import { admitAddress } from "../system/socket.ts";
import type { Reactor } from "../system/reactor.ts";
import { type Descriptors, PlainTransport, type Transport } from "../system/transport.ts";
import { certificateFiles, checkCertificates } from "./certificate_files.ts";
import { checkFile, stampOf } from "./private_file.ts";
import { libssl } from "./libssl.ts";
import { TlsContext, type TlsRole } from "./tls_context.ts";
import { TlsTransport } from "./tls_transport.ts";

const log = getLogger(["kemari", "tls"]);

const DAY_MS = 24 * 3600 * 1000;
const LOOK_MS = DAY_MS / 4;

/**
 * Ensures that a link is as private as its command line says. The files are checked again at each
 * connection, so that a new key, or a renewed certificate, needs no restart.
 */
export class LinkGuard {
  #security: UsedSecurity;
  readonly #role: TlsRole;
  /**
   * Names, one of which the peer's certificate must have; if empty, any certificate of the
   * authority is accepted.
   */
  readonly #names: readonly string[];
  readonly #sessionKeys: SessionKeys | undefined;
  #context: TlsContext | undefined;
  /** Identity of the files when they were read, and the day of the last check. */
  #stamp = "";
  #day = 0;

  private constructor(
    security: LinkSecurity,
    role: TlsRole,
    names: readonly string[],
    sessionKeys: SessionKeys | undefined,
  ) {
    this.#security = security;
    this.#role = role;
    this.#names = names;
    this.#sessionKeys = sessionKeys;
  }

  /**
   * Reads the credentials, so that their errors are reported before anything else happens.
   *
   * @param address Where a sender connects to, or a receiver listens.
   * @param sessionKeys The keys that senders may bring to a receiver by ssh, if that is possible.
   * @throws {TransportError} The credentials or OpenSSL cannot be used; {UsageError} a sender does
   *   not know which name to expect in the certificate.
   */
  static open(
    security: LinkSecurity,
    role: TlsRole,
    address: Address,
    sessionKeys?: SessionKeys,
  ): LinkGuard {
    const guard = new LinkGuard(security, role, namesOf(security, role, address), sessionKeys);
    if (security.kind !== "plain") guard.#read();
    else if (address.kind === "ssh" && !address.options.overSsh) libssl();
    return guard;
  }

  /** Whether connections are encrypted, so that a key that comes by ssh can be used. */
  get isEncrypted(): boolean {
    return this.#security.kind !== "plain";
  }

  /** The keys that come by ssh; undefined if none can come. */
  get sessionKeys(): SessionKeys | undefined {
    return this.#sessionKeys;
  }

  /**
   * Checks an address, of a peer or to listen at. Without an option for a network, a receiver that
   * senders can reach by ssh accepts only those.
   *
   * @param ip Its 4 or 16 bytes.
   * @param text The address as the user wrote it.
   * @throws {UsageError} The address is another host's, and nothing would protect the link;
   *   {TransportError} OpenSSL cannot be used.
   */
  admit(ip: Uint8Array, text: string): void {
    const security = this.#security;
    if (security.kind === "session-keys") return;
    switch (listeningAt(security, ip, this.#sessionKeys !== undefined)) {
      case "as-told":
        return;
      case "session-keys":
        this.#security = { kind: "session-keys" };
        this.#read();
        log.info("without --key, --tls-dir or --plain, only senders that come by ssh are let in");
        return;
      case "refused":
        throw new UsageError(`${text} is reached over a network, and nothing encrypts this link`, {
          hint: this.#role === "sender"
            ? "reach the secondary by ssh:HOST; or give both ends --key FILE (kemari keygen makes " +
              "one) or --tls-dir DIR; or --plain, where nobody else can reach that network"
            : "give it --control PATH, for senders that come by ssh:HOST:PATH; or give both ends " +
              "--key FILE (kemari keygen makes one) or --tls-dir DIR; or --plain, where nobody else " +
              "can reach that network",
        });
    }
  }

  /**
   * Checks a target by its name, so that an error is reported before anything else happens.
   *
   * @throws {UsageError} as {@link admit}.
   */
  async admitTarget(target: Address, signal: AbortSignal): Promise<void> {
    await admitAddress(target, signal, (ip) => this.admit(ip, target.text));
  }

  /**
   * Makes a connection from descriptors, which are closed together with the connection.
   *
   * @throws {TransportError} The credentials can no longer be used. The descriptors are closed.
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
   * Checks the credentials regularly for as long as the reactor runs, since two connections may be
   * months apart: warns if they expire soon, or can no longer be used.
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
    const credentials = credentialsOf(security, this.#role, this.#sessionKeys);
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

/** The security that was requested, and what is done for it. */
type UsedSecurity = LinkSecurity | { readonly kind: "session-keys" };

/** Credentials, unread. */
interface Credentials {
  readonly files: readonly string[];
  /**
   * Checks the credentials; warns if they expire soon. @throws {TransportError} They cannot be
   * used.
   */
  check(): void;
  make(): TlsContext;
}

function credentialsOf(
  security: Exclude<UsedSecurity, { kind: "plain" }>,
  role: TlsRole,
  sessionKeys: SessionKeys | undefined,
): Credentials {
  switch (security.kind) {
    case "session-keys":
      return { files: [], check() {}, make: () => TlsContext.ofKeys(role, [], sessionKeys) };
    case "key": {
      const { file } = security;
      const read = () => parsePskFile(Deno.readTextFileSync(file), file);
      return {
        files: [file],
        check: () => checkFile(file, true),
        make: () => TlsContext.ofKeys(role, read(), sessionKeys),
      };
    }
    case "certificates": {
      const files = certificateFiles(security.folder, role);
      return {
        files: Object.values(files),
        check: () => checkCertificates(files),
        make: () => TlsContext.ofCertificates(role, files, sessionKeys),
      };
    }
  }
}
