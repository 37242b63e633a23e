import { encodeTapEvent, type TapEvent } from "../events/tap_events.ts";
import type { PrimaryTaps } from "../primary/primary_config.ts";

/** For tests: puts events into the next transaction. */
export class ScriptedTaps implements PrimaryTaps {
  next: TapEvent[] = [];
  isReleasing = false;
  readonly released: number[] = [];
  checkpointRequested(): void {}
  holdInputs(): boolean {
    return true;
  }
  giveInputs(): void {}
  vmStops(): void {}
  drain(): void {}
  takeEvents(): Uint8Array[][] {
    return this.next.splice(0).map(encodeTapEvent);
  }
  closeEpoch(): void {}
  release(transaction: number): void {
    this.released.push(transaction);
  }
}
