import { Reactor } from "../reactor.ts";

const SPEED = 50;

/** A reactor for tests whose timers nobody wants to sit out: they fire fifty times as early. */
export class HastyReactor extends Reactor {
  override after(delayMs: number, callback: () => void): () => void {
    return super.after(delayMs / SPEED, callback);
  }
}
