/** What `--net`, `--disk` and `--sync-on` say, as lib/host takes it. */
import { UsageError } from "../errors.ts";
import { checkDiskTaps, type DiskTapAddress, parseDiskTap } from "../host/disk/disk_address.ts";
import { checkNetTaps, type NetTapAddress, parseNetTap } from "../host/net/net_address.ts";
import { defaultSyncOn, type SyncOn, type TapSettings } from "../host/taps/tap_status.ts";
import type { HeldClass } from "../control/tap_status.ts";
import type { PrimaryTapOptions, TapOptions } from "./options.ts";

/** @throws {UsageError} */
export function parseTaps(options: TapOptions): { nets: NetTapAddress[]; disks: DiskTapAddress[] } {
  const nets = options.net.map(parseNetTap);
  const disks = options.disk.map(parseDiskTap);
  checkNetTaps(nets);
  checkDiskTaps(disks);
  return { nets, disks };
}

/** @throws {UsageError} */
export function parsePrimaryTaps(
  options: PrimaryTapOptions,
): { taps: TapSettings; syncOn: SyncOn } {
  const taps: TapSettings = { ...parseTaps(options), diskSync: options.diskSync };
  const { syncOn } = options;
  return {
    taps,
    syncOn: syncOn === undefined ? defaultSyncOn(taps.disks) : parseClasses("--sync-on", syncOn),
  };
}

/**
 * Reads `net,disk`, `net`, `disk` or `none`.
 *
 * @throws {UsageError}
 */
export function parseClasses(option: string, text: string): readonly HeldClass[] {
  return parseWords(option, text, ["net", "disk"]);
}

/**
 * Reads some of the words, with commas between them, or `none`.
 *
 * @throws {UsageError}
 */
export function parseWords<const Word extends string>(
  option: string,
  text: string,
  words: readonly Word[],
): readonly Word[] {
  if (text === "none") return [];
  return text.split(",").map((each) => {
    const word = words.find((word) => word === each);
    if (word !== undefined) return word;
    throw new UsageError(`${option}: there is no "${each}"`, {
      hint: `write ${words.join(", ")} or none`,
    });
  });
}
