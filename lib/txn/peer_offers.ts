import { StateError } from "../errors.ts";
import { FEATURE } from "./hello.ts";

/** What the other end has offered in its HELLO. What it has not offered it is never sent. */
export class PeerOffers {
  /** @param features HELLO's field; none before it has come. */
  constructor(readonly features = 0) {}

  has(feature: keyof typeof FEATURE): boolean {
    return (this.features & FEATURE[feature]) !== 0;
  }

  /** @throws {StateError} if the caller is about to use what was not offered. */
  require(feature: keyof typeof FEATURE): void {
    if (!this.has(feature)) throw new StateError(`the peer has not offered ${feature}`);
  }
}
