/** What `kemari protect --via` asks of the kemari that has taken the VM over. */
import {
  anyBoolean,
  anyNumber,
  anyText,
  checked,
  listOf,
  Mismatch,
  oneOf,
  optional,
  record,
  type Shape,
} from "./shape.ts";
import type { CompressMode } from "./sender_status.ts";
import type { HeldClass } from "./tap_status.ts";

/** The request as it was sent; `settings` of another program's request may have any shape. */
export interface ProtectRequest<Settings = ViaConfig> {
  readonly command: "protect";
  /** The version that asks: both ends have to be the same. */
  readonly software: string;
  readonly settings: Settings;
}

/** How the link is protected: `--key`, `--tls-dir` with `--tls-name`, or `--plain`. */
export interface ViaSecurity {
  readonly key?: string;
  readonly tlsDir?: string;
  readonly tlsName?: readonly string[];
  readonly plain?: boolean;
}

/** `--ssh`, `--remote-kemari`, `--over-ssh` and `--recv`. */
export interface ViaSsh {
  readonly ssh: string;
  readonly remoteKemari: string;
  readonly overSsh: boolean;
  readonly startRecv?: string;
}

/** How to protect the VM; `protect`'s own options, with the paths made absolute. */
export interface ViaConfig {
  readonly target: string;
  /** Without one of these, the link may not cross a network. */
  readonly security: ViaSecurity;
  /** How a target `ssh:HOST` is reached, by the end that is asked. */
  readonly ssh?: ViaSsh;
  readonly qmp: string;
  readonly mode: "auto" | "colo" | "snapshot";
  readonly commit: "sync" | "async";
  readonly maxInFlightBytes: number;
  readonly syncIntervalMs: number;
  readonly onSecondaryLoss: "continue" | "stop";
  readonly retry: boolean;
  readonly sessionName?: string;
  /** The VM's name, in place of QEMU's UUID and name. */
  readonly vm?: string;
  /** The end that is asked has the taps: none are named. */
  readonly taps: {
    readonly nets: readonly never[];
    readonly disks: readonly never[];
    readonly diskSync: "full" | "none";
  };
  /** Undefined: the end that has the taps knows what is best. */
  readonly syncOn?: readonly HeldClass[];
  readonly syncMinIntervalMs: number;
  readonly heartbeatMs: number;
  readonly graceMs: number;
  readonly compress: CompressMode;
  readonly dedup?: boolean;
  readonly deltaCacheBytes: number;
}

const none: Shape<never> = (_value, path) => {
  throw new Mismatch(`${path} must not be there: the end that is asked has the taps`);
};

export const protectRequest = record<ProtectRequest<unknown>>({
  command: oneOf("protect"),
  software: anyText,
  settings: (settings) => settings,
});

const withSettings = record<{ readonly settings: ViaConfig }>({
  settings: record<ViaConfig>({
    target: anyText,
    security: record<ViaSecurity>({
      key: optional(anyText),
      tlsDir: optional(anyText),
      tlsName: optional(listOf(anyText)),
      plain: optional(anyBoolean),
    }),
    ssh: optional(record<ViaSsh>({
      ssh: anyText,
      remoteKemari: anyText,
      overSsh: anyBoolean,
      startRecv: optional(anyText),
    })),
    qmp: anyText,
    mode: oneOf("auto", "colo", "snapshot"),
    commit: oneOf("sync", "async"),
    maxInFlightBytes: anyNumber,
    syncIntervalMs: anyNumber,
    onSecondaryLoss: oneOf("continue", "stop"),
    retry: anyBoolean,
    sessionName: optional(anyText),
    vm: optional(anyText),
    taps: record<ViaConfig["taps"]>({
      nets: listOf(none),
      disks: listOf(none),
      diskSync: oneOf("full", "none"),
    }),
    syncOn: optional(listOf(oneOf("net", "disk"))),
    syncMinIntervalMs: anyNumber,
    heartbeatMs: anyNumber,
    graceMs: anyNumber,
    compress: oneOf("none", "zstd", "delta", "auto"),
    dedup: optional(anyBoolean),
    deltaCacheBytes: anyNumber,
  }),
});

/**
 * Checks the settings of a request that is known to come from the same version.
 *
 * @throws {WireError} `bad-value`, naming the field that is missing or of another type.
 */
export function decodeViaConfig({ settings }: ProtectRequest<unknown>): ViaConfig {
  return checked({ settings }, withSettings, "the request to protect").settings;
}
