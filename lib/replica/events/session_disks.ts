import { unnamedDisks } from "../../decisions/disk_fitness.ts";
import type { DiskEvent } from "./check_disk_event.ts";

/**
 * The disks that a session has named, and those that it has called complete. A session names each
 * of its disks once, in its first transaction, before any other event of that disk.
 */
export class SessionDisks {
  #isFirst = true;
  readonly #named = new Set<string>();
  readonly #copied = new Set<string>();
  /** The same, for the open transaction. */
  readonly #stagedNames = new Set<string>();
  readonly #stagedCopied = new Set<string>();

  /** Another session begins. */
  begin(): void {
    this.#isFirst = true;
    this.#named.clear();
    this.#copied.clear();
    this.abort();
  }

  /** Whether the session has named a disk, in a committed transaction. */
  has(name: string): boolean {
    return this.#named.has(name);
  }

  /**
   * Takes a disk's event into the open transaction.
   *
   * @returns Why the event is not allowed here, in words; undefined if it is allowed.
   */
  stage({ kind, tap }: DiskEvent): string | undefined {
    const isNamed = this.#named.has(tap) || this.#stagedNames.has(tap);
    if (kind === "disk") {
      if (isNamed) return `disk ${tap} is named a second time`;
      if (!this.#isFirst) return `disk ${tap} is named behind the session's first transaction`;
      this.#stagedNames.add(tap);
      return undefined;
    }
    if (!isNamed) return `disk ${tap} was not named by this session`;
    if (kind !== "copied") return undefined;
    if (this.#copied.has(tap) || this.#stagedCopied.has(tap)) {
      return `disk ${tap} is complete a second time`;
    }
    this.#stagedCopied.add(tap);
    return undefined;
  }

  /**
   * The disks because of which the open transaction cannot be committed: a session's first
   * transaction has to name them all. See `decisions/disk_fitness.ts`.
   */
  unnamed(here: Iterable<string>): readonly string[] {
    return this.#isFirst ? unnamedDisks(here, this.#stagedNames) : [];
  }

  commit(): void {
    this.#isFirst = false;
    for (const name of this.#stagedNames) this.#named.add(name);
    for (const name of this.#stagedCopied) this.#copied.add(name);
    this.abort();
  }

  abort(): void {
    this.#stagedNames.clear();
    this.#stagedCopied.clear();
  }
}
