import { SendFront, stayInFront } from "../host/send_front.ts";
import type { CommandContext } from "./context.ts";
import type { SendOptions } from "./options.ts";
import { parsePrimaryTaps } from "./tap_settings.ts";

export async function run(options: SendOptions, context: CommandContext): Promise<number | void> {
  const settings = { ...options, ...parsePrimaryTaps(options) };
  const { nets, disks } = settings.taps;
  const front = SendFront.ofThisProcess();
  // What is left to do when QEMU's stream is over: to tell its monitor, and to serve the taps on.
  if (front === undefined && (options.qmp !== undefined || nets.length + disks.length > 0)) {
    return await stayInFront(context.signal);
  }
  const { send } = await import("../host/send.ts");
  await send(settings, context.status, context.signal, front);
}
