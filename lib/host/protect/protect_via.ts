import { getLogger } from "@logtape/logtape";
import { securityOptions } from "../../decisions/link_security.ts";
import { parseTarget } from "../link/parse_target.ts";
import { isWhole } from "../../control/end_status.ts";
import { askProtection, askStatus } from "../system/ask_control.ts";
import { summarizeStatus } from "../status/summarize_status.ts";
import type { ViaConfig } from "../../control/protect_request.ts";
import type { ProtectSettings } from "./protect_context.ts";
import type { ProgressLine } from "../system/progress_line.ts";
import { parseQmpAddress } from "../vm/qmp_address.ts";
import { SOFTWARE } from "../system/software.ts";
import { delay } from "../system/delay.ts";

const log = getLogger(["kemari", "protect"]);

const STATUS_PERIOD_MS = 500;

/**
 * The settings for the kemari behind the control socket, which has the taps, and a control socket.
 */
type ViaSettings = Omit<ProtectSettings, "syncOn" | "control"> & Pick<ViaConfig, "syncOn">;

/**
 * `kemari protect --via SOCK`: has the kemari that took a VM over, and serves its disks and NICs,
 * protect the VM again. The protection lasts as long as this process: interrupted or killed, the VM
 * goes on unprotected.
 *
 * @param via The control socket of that `kemari recv`.
 * @throws {TransportError} nobody answers; {RelayedError} with that end's reason and exit code.
 */
export async function protectVia(
  via: string,
  settings: ViaSettings,
  progress: ProgressLine,
  signal: AbortSignal,
): Promise<void> {
  const request = {
    command: "protect",
    software: SOFTWARE,
    settings: fromAnywhere(settings),
  } as const;
  const done = new AbortController();
  const watching = watchStatus(via, progress, AbortSignal.any([signal, done.signal]));
  try {
    await askProtection(via, request, signal);
  } finally {
    done.abort();
    await watching;
  }
}

/** Shows the protection's progress until told to stop. */
async function watchStatus(
  via: string,
  progress: ProgressLine,
  signal: AbortSignal,
): Promise<void> {
  let told = "";
  while (!signal.aborted) {
    await delay(STATUS_PERIOD_MS);
    try {
      const status = await askStatus(via, signal);
      if (status.role !== "sender") continue;
      if (progress.isShown && isWhole(status)) progress.set(summarizeStatus(status));
      const state = status.syncs > 0 && status.state === "synchronizing"
        ? "protected: checkpoints follow"
        : status.state;
      if (state !== told) log.info("{state}", { state });
      told = state;
    } catch {
      // That end is busy or gone: the answer to the request will show it.
    }
  }
}

/** Makes paths absolute: the other process has another working directory. */
function fromAnywhere(settings: ViaSettings): ViaConfig {
  const absolute = (path: string) => path.startsWith("/") ? path : `${Deno.cwd()}/${path}`;
  const security = securityOptions(settings.security);
  const target = parseTarget(settings);
  const qmp = parseQmpAddress(settings.qmp);
  return {
    ...settings,
    security: {
      ...security,
      ...(security.key === undefined ? {} : { key: absolute(security.key) }),
      ...(security.tlsDir === undefined ? {} : { tlsDir: absolute(security.tlsDir) }),
    },
    taps: { ...settings.taps, nets: [], disks: [] },
    qmp: qmp.kind === "unix" ? absolute(qmp.path) : settings.qmp,
    target: target.kind === "unix" ? `unix:${absolute(target.path)}` : settings.target,
  };
}
