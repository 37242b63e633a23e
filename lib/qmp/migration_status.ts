import type { QmpCommand } from "./codec.ts";

/** Asks for the migration's status; {@link decodeMigrationStatus} reads the answer. */
export function queryMigration(): QmpCommand {
  return { execute: "query-migrate" };
}

/** The status of a migration. */
export interface MigrationStatus {
  readonly phase: "none" | "running" | "colo" | "completed" | "failed" | "cancelled";
  /** QEMU's own name for it, such as `pre-switchover`. */
  readonly status: string;
  /** QEMU's reason for a failure. */
  readonly error?: string;
  readonly blockedReasons: readonly string[];
}

/** Reads `query-migrate`'s answer, or a MIGRATION event's data. */
export function decodeMigrationStatus(reply: unknown): MigrationStatus {
  const object = typeof reply === "object" && reply !== null
    ? reply as Record<string, unknown>
    : {};
  const status = typeof object.status === "string" ? object.status : "none";
  const reasons = object["blocked-reasons"];
  const error = object["error-desc"];
  return {
    phase: phaseOf(status),
    status,
    ...(typeof error === "string" ? { error } : {}),
    blockedReasons: Array.isArray(reasons)
      ? reasons.filter((each) => typeof each === "string")
      : [],
  };
}

function phaseOf(status: string): MigrationStatus["phase"] {
  switch (status) {
    case "none":
    case "colo":
    case "completed":
    case "cancelled":
    case "failed":
      return status;
    default:
      return "running";
  }
}
