import type { SendFront } from "./send_front.ts";
import { adopt } from "./system/channel.ts";
import { PrimaryTapDevices } from "./taps/primary_tap_devices.ts";

/** A descriptor, and a function that gives it back. */
type Adopted = ReturnType<typeof adopt>;

/** The parts of its process that a `kemari send` uses. */
export interface SendEnds {
  /** QEMU's stream. */
  readonly input: Adopted;
  /** QEMU's return path. */
  readonly output: Adopted;
  /** The process that QEMU waits for, if that is another one. */
  readonly front?: SendFront;
  readonly openTaps: typeof PrimaryTapDevices.open;
}

/** Stdin and stdout, as QEMU gives them to its commands. */
export function standardEnds(front?: SendFront): SendEnds {
  return {
    input: adopt(0, "read"),
    output: adopt(1, "write"),
    front,
    openTaps: PrimaryTapDevices.open,
  };
}
