/** What a side asks of the arbiter, and what it is answered. */
import { isEqual, type Register } from "./register.ts";

/** What is asked; asking again changes nothing that asking once has not. */
export type Ask =
  /** What the register holds. */
  | { readonly do: "read" }
  /** To put `to` in the place of `from`; undefined stands for no register at all. */
  | { readonly do: "swap"; readonly from: Register | undefined; readonly to: Register };

/** What is answered. */
export type Answer =
  /** The register holds what was asked for: by this request, or by an earlier one of the same kind. */
  | { readonly is: "won" }
  /** The register holds something else, and will never become what was asked for by this request. */
  | { readonly is: "current"; readonly register: Register | undefined }
  /** What is there is no register of this VM's, or none that this version understands. */
  | { readonly is: "foreign"; readonly why: string }
  /** Nobody answered, or not in time: what was asked for may have been done, or be done later. */
  | { readonly is: "unknown"; readonly why: string };

/** Whether two things asked are the same. */
export function isSameAsk(a: Ask | undefined, b: Ask | undefined): boolean {
  if (a?.do !== b?.do) return false;
  if (a?.do !== "swap" || b?.do !== "swap") return true;
  return isEqual(a.from, b.from) && isEqual(a.to, b.to);
}
