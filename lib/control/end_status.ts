/** A status of either end, as it is told over a control socket. */
import {
  EARLY_RECEIVER_FIELDS,
  type EarlyReceiverStatus,
  RECEIVER_FIELDS,
  type ReceiverStatus,
} from "./receiver_status.ts";
import {
  EARLY_SENDER_FIELDS,
  type EarlyStatus,
  SENDER_FIELDS,
  type SenderStatus,
} from "./sender_status.ts";
import { oneOf, record, type Shape } from "./shape.ts";

export type EndStatus = SenderStatus | ReceiverStatus;

/** What an end tells that has just begun: its role, what it waits for, and no syncs yet. */
export type EarlyEndStatus = EarlyStatus | EarlyReceiverStatus;

const SHAPES = {
  sender: { early: EARLY_SENDER_FIELDS, all: SENDER_FIELDS },
  receiver: { early: EARLY_RECEIVER_FIELDS, all: RECEIVER_FIELDS },
};

const hasRole = record({ role: oneOf("sender", "receiver") });

export const statusShape: Shape<EndStatus | EarlyEndStatus> = (value, path) => {
  const { early, all } = SHAPES[hasRole(value, path).role];
  // Whoever tells one thing more than at the beginning tells all of it.
  const isWhole = Object.keys(all).some((name) => !(name in early) && name in (value as object));
  const fields = (isWhole ? all : early) as typeof SENDER_FIELDS;
  return record(fields)(value, path);
};

/** Whether an end tells all there is, or has just begun. */
export function isWhole(status: EndStatus | EarlyEndStatus): status is EndStatus {
  return "lastCommitted" in status;
}
