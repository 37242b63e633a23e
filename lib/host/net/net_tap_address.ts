import { UsageError } from "../../errors.ts";
import { type Address, parseAddress } from "../system/address.ts";

/** The address of a Unix socket on the command line. */
export type UnixAddress = Extract<Address, { kind: "unix" }>;

/** Where a guest's frames go, and the frames for the guest come from. */
export type NetOutAddress =
  /** A TAP device of this host, which is made if it does not exist. */
  | { readonly kind: "tap"; readonly ifname: string; readonly text: string }
  /** A socket on which a program listens that speaks as `-netdev stream` does; kemari connects. */
  | UnixAddress;

/** One `--net NAME=IN,OUT`. */
export interface NetTapAddress {
  /** The tap's name, the same at both ends. */
  readonly name: string;
  /** The socket on which kemari listens, and to which QEMU's netdev connects. */
  readonly in: UnixAddress;
  readonly out: NetOutAddress;
}

const SHAPE = "write NAME=unix:PATH,tap:IFNAME or NAME=unix:PATH,unix:PATH, " +
  "such as net0=unix:/run/vm1.net,tap:tap0";
/** IFNAMSIZ with its terminator is 16. */
const MAX_IFNAME_BYTES = 15;

/**
 * Reads `NAME=IN,OUT`.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(parseNetTap("net0=unix:/run/vm.net,tap:tap0").out, {
 *   kind: "tap", ifname: "tap0", text: "tap:tap0",
 * });
 * ```
 *
 * @throws {UsageError}
 */
export function parseNetTap(text: string): NetTapAddress {
  const refuse = (what: string): never => {
    throw new UsageError(`--net "${text}": ${what}`, { hint: SHAPE });
  };
  const equals = text.indexOf("=");
  if (equals < 0) refuse("there is no NAME= in front");
  const name = text.slice(0, equals);
  if (!/^[A-Za-z0-9_.-]{1,32}$/.test(name)) {
    refuse(`the name "${name}" must be 1 to 32 letters, digits, ".", "_" or "-"`);
  }
  const ends = text.slice(equals + 1).split(",");
  if (ends.length !== 2) {
    refuse(
      ends.length < 2 ? "there is no comma and OUT behind IN" : "there is more than one comma",
    );
  }
  const [inText, outText] = ends;
  if (!inText.startsWith("unix:")) {
    refuse(`"${inText}" must be unix:PATH, where QEMU's -netdev stream connects`);
  }
  return { name, in: unixAddress(inText), out: parseOut(outText, refuse) };
}

/**
 * Checks that taps do not share anything.
 *
 * @throws {UsageError} if two have the same name, socket or TAP.
 */
export function checkNetTaps(taps: readonly NetTapAddress[]): void {
  const seen = new Map<string, string>();
  const claim = (what: string, name: string) => {
    const other = seen.get(what);
    if (other !== undefined) {
      throw new UsageError(
        other === name
          ? `--net: ${what} is used twice`
          : `--net ${other} and ${name}: both ${what}`,
        { hint: "give every NIC a name, a socket and an OUT of its own" },
      );
    }
    seen.set(what, name);
  };
  for (const tap of taps) {
    claim(`name ${tap.name}`, tap.name);
    claim(tap.in.text, tap.name);
    claim(tap.out.text, tap.name);
  }
}

function parseOut(text: string, refuse: (what: string) => never): NetOutAddress {
  if (text.startsWith("unix:")) return unixAddress(text);
  if (!text.startsWith("tap:")) return refuse(`"${text}" must be tap:IFNAME or unix:PATH`);
  const ifname = text.slice("tap:".length);
  const length = new TextEncoder().encode(ifname).length;
  if (length === 0 || length > MAX_IFNAME_BYTES) {
    return refuse(`an interface's name has 1 to ${MAX_IFNAME_BYTES} bytes`);
  }
  // The kernel takes % for a pattern, and would make up a name.
  if (/[\s/:%]/.test(ifname) || ifname === "." || ifname === "..") {
    return refuse(`no interface can be called "${ifname}"`);
  }
  return { kind: "tap", ifname, text };
}

function unixAddress(text: string): UnixAddress {
  const address = parseAddress(text);
  if (address.kind !== "unix") throw new UsageError(`"${text}" is no unix:PATH`, { hint: SHAPE });
  return address;
}
