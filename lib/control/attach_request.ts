/**
 * What a sender that comes by ssh asks of a running `kemari recv`, and is told: over ssh
 * (attach_lines.ts), and over the control socket there (request.ts).
 */
import { Mismatch, oneOf, record, type Shape } from "./shape.ts";

/** Bytes of a session's key, which is written in hexadecimal. */
const KEY_BYTES = 32;

/** What a sender asks for. */
export type AttachRequest =
  /** `key`: a secret of 32 bytes, in hexadecimal, that `identity` names. */
  | { readonly way: "direct"; readonly identity: string; readonly key: string }
  /** The connection itself becomes the session's. */
  | { readonly way: "over-ssh" };

/** Where a receiver listens: the address that it has bound, such as `0.0.0.0`. */
export interface AttachPlace {
  readonly host: string;
  readonly port: number;
}

/** No message quotes it. */
const secretKey: Shape<string> = (value, path) => {
  if (typeof value === "string" && new RegExp(`^[0-9a-f]{${2 * KEY_BYTES}}$`).test(value)) {
    return value;
  }
  throw new Mismatch(`${path} must be ${KEY_BYTES} bytes in hexadecimal`);
};

const identity: Shape<string> = (value, path) => {
  if (typeof value === "string" && /^[\w.-]{1,64}$/.test(value)) return value;
  throw new Mismatch(`${path} must be up to 64 letters, digits, dots and dashes`);
};

const portNumber: Shape<number> = (value, path) => {
  if (Number.isInteger(value) && 0 < (value as number) && (value as number) < 65536) {
    return value as number;
  }
  throw new Mismatch(`${path} must be a port's number`);
};

const host: Shape<string> = (value, path) => {
  if (typeof value === "string" && /^[\w.:%-]{1,255}$/.test(value)) return value;
  throw new Mismatch(`${path} must be an IP address`);
};

const hasWay = record<{ readonly way: AttachRequest["way"] }>({ way: oneOf("direct", "over-ssh") });
const direct = record<Extract<AttachRequest, { way: "direct" }>>({
  way: oneOf("direct"),
  identity,
  key: secretKey,
});

export const attachRequestShape: Shape<AttachRequest> = (value, path) =>
  hasWay(value, path).way === "direct" ? direct(value, path) : { way: "over-ssh" };
export const attachPlaceShape = record<AttachPlace & { readonly ok: true }>({
  ok: oneOf(true),
  host,
  port: portNumber,
});
