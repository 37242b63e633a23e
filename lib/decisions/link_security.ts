/**
 * How a link is protected, and where it need not be.
 *
 * A VM's memory crosses a link, with every key in it; and a sender on a link can give a host a VM
 * to run. Loopback, a Unix socket and a pipe are accessible only on this host, where the system
 * separates the users. A network is accessible to anybody: there a link is encrypted and both ends
 * prove who they are, unless an operator has explicitly said that the network is as safe as a
 * cable.
 */
import { UsageError } from "../errors.ts";

/** The choices on an end's command line. */
export interface SecurityOptions {
  /** The file of pre-shared keys. */
  readonly key?: string;
  /** The folder with certificates. */
  readonly tlsDir?: string;
  /** The names that the peer's certificate may have. */
  readonly tlsName?: readonly string[];
  /** Whether a network may be crossed without encryption. */
  readonly plain?: boolean;
}

/** The resulting protection. */
export type LinkSecurity =
  | { readonly kind: "plain"; readonly crossesNetworks: boolean }
  | { readonly kind: "key"; readonly file: string }
  | {
    readonly kind: "certificates";
    readonly folder: string;
    /**
     * Empty: for a sender its target's name; for a receiver any sender with a certificate of the
     * authority.
     */
    readonly names: readonly string[];
  };

/**
 * Chooses the protection.
 *
 * @throws {UsageError} More than one protection is asked for, or names without certificates.
 */
export function chooseSecurity(
  { key, tlsDir, tlsName = [], plain }: SecurityOptions,
): LinkSecurity {
  const chosen = [
    ...(key === undefined ? [] : ["--key"]),
    ...(tlsDir === undefined ? [] : ["--tls-dir"]),
    ...(plain ? ["--plain"] : []),
  ];
  if (chosen.length > 1) {
    throw new UsageError(`${chosen.join(" and ")} exclude each other`, {
      hint: "a link has a key, or certificates, or is plain",
    });
  }
  if (tlsName.length > 0 && tlsDir === undefined) {
    throw new UsageError("--tls-name is about certificates: it needs --tls-dir");
  }
  if (tlsName.length > 1 && tlsName.some(isAddress)) {
    throw new UsageError("--tls-name takes one IP address, or any number of names");
  }
  if (key !== undefined) return { kind: "key", file: key };
  if (tlsDir !== undefined) return { kind: "certificates", folder: tlsDir, names: tlsName };
  return { kind: "plain", crossesNetworks: plain === true };
}

/**
 * The options of a protection, from which {@link chooseSecurity} makes the same; for a request over
 * a control socket.
 */
export function securityOptions(security: LinkSecurity): SecurityOptions {
  switch (security.kind) {
    case "plain":
      return { plain: security.crossesNetworks };
    case "key":
      return { key: security.file };
    case "certificates":
      return { tlsDir: security.folder, tlsName: security.names };
  }
}

/** Whether a text is an IP address rather than a host's name. */
export function isAddress(text: string): boolean {
  return /^\d+(\.\d+){3}$/.test(text) || text.includes(":");
}

/** Whether an IP address, of 4 or 16 bytes, is this host's own loopback. */
export function isLoopback(ip: Uint8Array): boolean {
  if (ip.length === 4) return ip[0] === 127;
  const first = ip.subarray(0, 10).every((byte) => byte === 0);
  // IPv4 in IPv6: ::ffff:127.0.0.1.
  if (first && ip[10] === 0xff && ip[11] === 0xff) return ip[12] === 127;
  return first && ip.subarray(10, 15).every((byte) => byte === 0) && ip[15] === 1;
}

/** What a receiver's listening at an address is to be like. */
export type Listening =
  | "as-told"
  /** Encrypted, with keys that senders bring by ssh: nobody else is let in. */
  | "session-keys"
  | "refused";

/**
 * Decides how a receiver listens at an IP address. A network that nothing was said about is open to
 * those who can log in here, and to nobody else.
 *
 * @param takesSessionKeys Whether there is a control socket, over which such senders are announced.
 */
export function listeningAt(
  security: LinkSecurity,
  ip: Uint8Array,
  takesSessionKeys: boolean,
): Listening {
  if (mayBePlain(security, ip)) return "as-told";
  return takesSessionKeys ? "session-keys" : "refused";
}

/** Whether a link with an IP address may be without encryption. */
export function mayBePlain(security: LinkSecurity, ip: Uint8Array): boolean {
  return security.kind !== "plain" || security.crossesNetworks || isLoopback(ip);
}

/**
 * The names that a sender expects in its target's certificate.
 *
 * @param host The target's host, if it has one.
 * @throws {UsageError} There is no name to expect.
 */
export function expectedNames(
  security: Extract<LinkSecurity, { kind: "certificates" }>,
  host: string | undefined,
): readonly string[] {
  if (security.names.length > 0) return security.names;
  if (host !== undefined) return [host.replace(/%.*$/, "")];
  throw new UsageError("this target has no host's name that its certificate could have", {
    hint: "give the name in the secondary's certificate with --tls-name",
  });
}
