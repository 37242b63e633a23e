import { WireError, type WireFault } from "../errors.ts";

/** Throws the {@link WireError} for a fault at `offset` of a connection. */
export function refuse(offset: number, fault: WireFault, message: string, hint?: string): never {
  throw new WireError("transaction", offset, fault, message, { hint });
}
