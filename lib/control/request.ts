/**
 * The requests to a control socket, a JSON object on each line.
 *
 * ```text
 * {"command":"status"} → a status, see status.ts {"command":"durations"} → a sender's last
 * thousands of each kind of duration {"command":"failover","stale":true} → see answer.ts, when the
 * VM's state has been handed on {"command":"protect","software":…,"settings":…} → see answer.ts,
 * when the protection ends {"command":"attach","way":"direct","identity":…,"key":…} → see
 * answer.ts: where to connect {"command":"attach","way":"over-ssh"} → see answer.ts, when the
 * session has ended; with two descriptors, to read from and to write to
 * ```
 */
import { type AttachRequest, attachRequestShape } from "./attach_request.ts";
import { type ProtectRequest, protectRequest } from "./protect_request.ts";
import { anyBoolean, checked, isObject, optional, record } from "./shape.ts";
import { type Refusal, refuseCommand } from "./answer.ts";

/** The longest request, in bytes. */
export const MAX_REQUEST_BYTES = 16_384;

/** `key` is a secret: a request is never logged. */
export type AttachCommand = AttachRequest & { readonly command: "attach" };

export type ControlRequest =
  | { readonly command: "status" }
  | { readonly command: "durations" }
  /** `stale`: start the replica even if it is known to be old; default false. */
  | { readonly command: "failover"; readonly stale: boolean }
  | AttachCommand
  | ProtectRequest<unknown>;

const failoverRequest = record<{ readonly stale?: boolean }>({ stale: optional(anyBoolean) });

export function encodeRequest(request: ControlRequest): string {
  return JSON.stringify(request) + "\n";
}

/**
 * Reads a request. Settings to protect with are left unchecked: see {@link decodeViaConfig}.
 *
 * @returns The request; or the answer to a line that is no known request.
 * @throws {WireError} `bad-value` if a field is missing or of another type.
 */
export function decodeRequest(line: string): ControlRequest | Refusal {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return { error: "the request is not JSON" };
  }
  const request = isObject(value) ? value : {};
  switch (request.command) {
    case "status":
    case "durations":
      return { command: request.command };
    case "failover": {
      const { stale = false } = checked(request, failoverRequest, "the request to fail over");
      return { command: "failover", stale };
    }
    case "attach":
      return {
        command: "attach",
        ...checked(request, attachRequestShape, "the request to attach"),
      };
    case "protect":
      return checked(request, protectRequest, "the request to protect");
    default:
      return refuseCommand(request.command);
  }
}
