/** A side's requests to the arbiter, and the answers. */
import { isEqual, type Register } from "./register.ts";

/** A request; repeating it has no further effect. */
export type Ask =
  /** Reads the register. */
  | { readonly do: "read" }
  /** Replaces `from` by `to`; undefined stands for a missing register. */
  | { readonly do: "swap"; readonly from: Register | undefined; readonly to: Register };

/** An answer. */
export type Answer =
  /** The register holds the requested value: by this request, or by an earlier equal one. */
  | { readonly is: "won" }
  /** The register holds another value, and this request will never change it. */
  | { readonly is: "current"; readonly register: Register | undefined }
  /** The value is not a register of this VM, or not one that this version understands. */
  | { readonly is: "foreign"; readonly why: string }
  /** No answer came, or too late: the request may have been carried out, or may be later. */
  | { readonly is: "unknown"; readonly why: string };

/** Whether two requests are equal. */
export function isSameAsk(a: Ask | undefined, b: Ask | undefined): boolean {
  if (a?.do !== b?.do) return false;
  if (a?.do !== "swap" || b?.do !== "swap") return true;
  return isEqual(a.from, b.from) && isEqual(a.to, b.to);
}
