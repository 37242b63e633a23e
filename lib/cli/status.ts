import { TransportError, WireError } from "../errors.ts";
import { askControl } from "../host/system/control.ts";
import type { EndStatus } from "../host/status/status_line.ts";
import type { CommandContext } from "./context.ts";
import type { StatusOptions } from "./options.ts";
import { formatStatus } from "./status_text.ts";

/** Time between two reports of `--watch`, in milliseconds. */
const WATCH_MS = 1000;

/** Prints how a running end is doing: once, or every second until the signal. */
export async function run(options: StatusOptions, context: CommandContext): Promise<void> {
  const { socket, json, watch } = options;
  for (let round = 1;; round++) {
    const answer = await askControl(socket, "status", context.signal);
    const status = checkStatus(answer, socket);
    if (json) context.writeOut(JSON.stringify(answer, null, watch ? 0 : 2) + "\n");
    else context.writeOut((round > 1 ? "\n" : "") + formatStatus(status));
    if (!watch) return;
    await pause(WATCH_MS, context.signal);
  }
}

/** What answered may be anything; only kemari names its role. */
function checkStatus(answer: Record<string, unknown>, socket: string): EndStatus {
  if (typeof answer?.error === "string") {
    const hint = typeof answer.hint === "string" ? answer.hint : undefined;
    throw new TransportError(socket, "read", answer.error, { party: "control", hint });
  }
  if (answer?.role === "sender" || answer?.role === "receiver") {
    return answer as unknown as EndStatus;
  }
  throw new WireError("transaction", 0, "bad-value", `${socket}: the answer is no kemari status`, {
    hint: "name the socket that was given to kemari send, recv or protect as --control",
  });
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
