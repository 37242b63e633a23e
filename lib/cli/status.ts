import { askStatus } from "../host/system/ask_control.ts";
import type { CommandContext } from "./context.ts";
import type { StatusOptions } from "./options.ts";
import { formatStatus } from "./status_text.ts";

/** Time between two reports of `--watch`, in milliseconds. */
const WATCH_MS = 1000;

/** Prints how a running end is doing: once, or every second until the signal. */
export async function run(options: StatusOptions, context: CommandContext): Promise<void> {
  const { socket, json, watch } = options;
  for (let round = 1;; round++) {
    const status = await askStatus(socket, context.signal);
    if (json) context.writeOut(JSON.stringify(status, null, watch ? 0 : 2) + "\n");
    else context.writeOut((round > 1 ? "\n" : "") + formatStatus(status));
    if (!watch) return;
    await pause(WATCH_MS, context.signal);
  }
}

/** Waits, and throws the signal's reason if it comes first. */
async function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const interrupt = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", interrupt);
      resolve();
    }, durationMs);
    signal.addEventListener("abort", interrupt, { once: true });
  });
}
