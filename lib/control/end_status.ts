/** The status of either end, as sent over a control socket. */
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

/** The status of an end that has just begun: its role, what it waits for, and no syncs yet. */
export type EarlyEndStatus = EarlyStatus | EarlyReceiverStatus;

const SHAPES = {
  sender: { early: EARLY_SENDER_FIELDS, all: SENDER_FIELDS },
  receiver: { early: EARLY_RECEIVER_FIELDS, all: RECEIVER_FIELDS },
};

const hasRole = record({ role: oneOf("sender", "receiver") });

export const statusShape: Shape<EndStatus | EarlyEndStatus> = (value, path) => {
  const { early, all } = SHAPES[hasRole(value, path).role];
  // A status with any field beyond those of the beginning must have all fields.
  const isWhole = Object.keys(all).some((name) => !(name in early) && name in (value as object));
  const fields = (isWhole ? all : early) as typeof SENDER_FIELDS;
  return record(fields)(value, path);
};

/** Whether a status is complete, rather than that of an end that has just begun. */
export function isWhole(status: EndStatus | EarlyEndStatus): status is EndStatus {
  return "lastCommitted" in status;
}
