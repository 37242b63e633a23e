import { TransportError, WireError } from "../../errors.ts";
import type { EndStatus } from "../../host/status/status_line.ts";
import { defineCommand } from "../command.ts";
import { flag, optionGroup } from "../options/option_group.ts";
import { json, OUTPUT } from "../options/output.ts";

/** Time between two reports of `--watch`, in milliseconds. */
const WATCH_MS = 1000;

const watch = optionGroup(
  OUTPUT,
  (command) => command.addOption(flag("-w, --watch", "print again every second")),
);

export const status = defineCommand({
  name: "status",
  summary: "print how a running send, recv or protect is doing",
  arguments: (command) => command.argument("<socket>", "its --control socket: PATH or unix:PATH"),
  groups: [json, watch],
  help: {
    examples: [
      "kemari status /run/kemari.ctl",
      "kemari status /run/kemari.ctl --json | jq .lastCommitted",
      "kemari status /run/kemari.ctl --watch",
    ],
    exits: {
      done: "the status was printed",
      bytes: "something other than kemari answered",
      connection: "nothing answers at the socket",
    },
  },
  async run([socket], options, { writeOut, signal }) {
    const { askControl } = await import("../../host/system/control.ts");
    const { formatStatus } = await import("../output/status_text.ts");
    for (let round = 1;; round++) {
      const answer = await askControl(socket, "status", signal);
      const status = checkStatus(answer, socket);
      if (options.json) writeOut(JSON.stringify(answer, null, options.watch ? 0 : 2) + "\n");
      else writeOut((round > 1 ? "\n" : "") + formatStatus(status));
      if (!options.watch) return;
      await pause(WATCH_MS, signal);
    }
  },
});

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
