import { parseTarget } from "./link/parse_target.ts";
import type { SendFront } from "./send_front.ts";
import { standardEnds } from "./send_ends.ts";
import type { SendSettings } from "./send_settings.ts";
import { Sending } from "./sending.ts";
import { parseControlPath } from "./system/control_path.ts";
import type { ProgressLine } from "./system/progress_line.ts";
import { LinkGuard } from "./tls/link_guard.ts";
import { parseQmpAddress } from "./vm/qmp_address.ts";

/**
 * `kemari send`: QEMU's stream on stdin, its return path on stdout, transactions to the target.
 *
 * @param front The process that QEMU waits for, if that is another one.
 * @returns Resolves when a stream has ended and was handed over, or when the VM was shut down.
 * @throws {WireError} the stream or the peer is at fault; {TransportError} either is lost.
 */
export async function send(
  settings: SendSettings,
  progress: ProgressLine,
  signal: AbortSignal,
  front?: SendFront,
): Promise<void> {
  const target = parseTarget(settings);
  if (settings.qmp !== undefined) parseQmpAddress(settings.qmp);
  if (settings.control !== undefined) parseControlPath(settings.control);
  const guard = LinkGuard.open(settings.security, "sender", target);
  await guard.admitTarget(target, signal);
  const sending = new Sending(settings, target, guard, progress, signal, standardEnds(front));
  try {
    await sending.connect();
    await sending.run();
  } catch (error) {
    await sending.part(error);
  } finally {
    await sending.close();
  }
}
