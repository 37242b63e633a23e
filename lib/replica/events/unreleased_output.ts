import { refuse } from "../../txn/wire_fault.ts";
import type { TapEvent } from "./tap_events.ts";

/** A packet or a write to a shared disk that the primary may not have let go. */
export interface Unreleased {
  readonly transaction: number;
  readonly event: TapEvent;
  /** Bytes that it counts. */
  readonly bytes: number;
}

/** Bytes of a NIC's packets, and of the writes to a shared disk. */
export interface MostUnreleased {
  readonly packets: number;
  readonly writes: number;
}

/**
 * How much a primary leaves unreleased at the most, for one tap: it holds back a NIC whose packets are
 * 64 MiB, and gives its secondary up where 512 MiB of writes to a disk wait. More than that is no
 * primary's, or one's that never says RELEASED.
 */
export const MOST_UNRELEASED_BYTES: MostUnreleased = {
  packets: 128 * 2 ** 20,
  writes: 768 * 2 ** 20,
};

/** What is committed and has to be let go here if the VM goes on here, in order. */
export class UnreleasedOutput {
  #all: Unreleased[] = [];
  /** Bytes of each tap's events, and of those that the open transaction would add. */
  readonly #kept = new Map<string, number>();
  readonly #staged = new Map<string, number>();
  /** Disks of which the open transaction forgets what is kept. */
  readonly #renewed = new Set<string>();
  readonly #most: MostUnreleased;

  /** @param most Bytes of each tap's events that may be kept. */
  constructor(most = MOST_UNRELEASED_BYTES) {
    this.#most = most;
  }

  get all(): readonly Unreleased[] {
    return this.#all;
  }

  /**
   * Counts an event that the open transaction may {@link add}.
   *
   * @param bytes What it counts: its payload, and a little for itself.
   * @param offset The event's offset in the connection, for errors.
   * @throws {WireError} `too-large` if that is more than a primary leaves unreleased.
   */
  stage(event: TapEvent, bytes: number, offset: number): void {
    const staged = count(this.#staged, event, bytes);
    const { kind, tap } = event;
    const most = kind === "packet" ? this.#most.packets : this.#most.writes;
    const kept = kind !== "packet" && this.#renewed.has(tap) ? 0 : this.#kept.get(keyOf(event));
    if ((kept ?? 0) + staged <= most) return;
    const what = kind === "packet" ? `packets of net tap ${tap}` : `writes to disk tap ${tap}`;
    refuse(offset, "too-large", `more than ${most} bytes of ${what} without a RELEASED`);
  }

  /** The open transaction names a disk: with it, {@link forgetDisk} is called. */
  renew(disk: string): void {
    this.#renewed.add(disk);
  }

  /** The open transaction is over. */
  unstage(): void {
    this.#staged.clear();
    this.#renewed.clear();
  }

  add(transaction: number, event: TapEvent, bytes: number): void {
    this.#all.push({ transaction, event, bytes });
    count(this.#kept, event, bytes);
  }

  /** The primary has let go what belongs to this transaction, and to those before it. */
  released(transaction: number): void {
    let gone = 0;
    while (gone < this.#all.length && this.#all[gone].transaction <= transaction) {
      const { event, bytes } = this.#all[gone++];
      count(this.#kept, event, -bytes);
    }
    if (gone > 0) this.#all = this.#all.slice(gone);
  }

  /** Forgets the writes to a disk that belong to transactions before this one. */
  forgetDisk(disk: string, before: number): void {
    this.#all = this.#all.filter(({ transaction, event, bytes }) => {
      const stays = transaction >= before || event.kind === "packet" || event.tap !== disk;
      if (!stays) count(this.#kept, event, -bytes);
      return stays;
    });
  }
}

/** @returns What the event's tap has then. */
function count(bytes: Map<string, number>, event: TapEvent, change: number): number {
  const key = keyOf(event);
  const sum = (bytes.get(key) ?? 0) + change;
  bytes.set(key, sum);
  return sum;
}

/** A NIC and a disk may have one name. */
function keyOf({ kind, tap }: TapEvent): string {
  return `${kind === "packet" ? "net" : "disk"} ${tap}`;
}
