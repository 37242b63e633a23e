/** Statuses of running kemaris, of one kind each: labs know whom they ask. */
import type { ReceiverStatus } from "../../control/receiver_status.ts";
import type { SenderStatus } from "../../control/sender_status.ts";
import { isWhole } from "../../control/end_status.ts";
import type { TapStatus } from "../../control/tap_status.ts";
import { TransportError } from "../../errors.ts";
import { askStatus } from "../../host/system/ask_control.ts";

/** Of a sender that has taps. */
export type TappedStatus = SenderStatus & { readonly taps: TapStatus };

/** @throws {TransportError} if it is no sender, or has had no session yet; and see {@link askStatus}. */
export async function askSender(socket: string, signal: AbortSignal): Promise<SenderStatus> {
  const status = await askStatus(socket, signal);
  if (isWhole(status) && status.role === "sender") return status;
  throw new TransportError(socket, "read", `a ${status.role} that is ${status.state} answers`, {
    party: "control",
  });
}

/** @throws {TransportError} if it is no sender with taps; and see {@link askSender}. */
export async function askTappedSender(socket: string, signal: AbortSignal): Promise<TappedStatus> {
  const status = await askSender(socket, signal);
  const { taps } = status;
  if (taps !== undefined) return { ...status, taps };
  throw new TransportError(socket, "read", "a sender without taps answers", { party: "control" });
}

/** @throws {TransportError} if it is no receiver, or does not listen yet; and see {@link askStatus}. */
export async function askReceiver(socket: string, signal: AbortSignal): Promise<ReceiverStatus> {
  const status = await askStatus(socket, signal);
  if (isWhole(status) && status.role === "receiver") return status;
  throw new TransportError(socket, "read", `a ${status.role} that is ${status.state} answers`, {
    party: "control",
  });
}
