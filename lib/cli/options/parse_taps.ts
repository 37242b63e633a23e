/** Parses `--net`, `--disk` and `--sync-on` into the settings of lib/host. */
import { UsageError } from "../../errors.ts";
import {
  checkDiskTaps,
  type DiskTapAddress,
  parseDiskTap,
} from "../../host/disk/disk_tap_address.ts";
import { checkNetTaps, type NetTapAddress, parseNetTap } from "../../host/net/net_tap_address.ts";
import { defaultSyncOn, type SyncOn, type TapSettings } from "../../host/taps/tap_settings.ts";
import type { PrimaryTapOptions, TapOptions } from "./taps.ts";

/**
 * Reads `--net` and `--disk`.
 *
 * @throws {UsageError} An option of another form, or two with the same name, socket, image or
 *   device.
 */
export function parseTaps(options: TapOptions): { nets: NetTapAddress[]; disks: DiskTapAddress[] } {
  const nets = options.net.map(parseNetTap);
  const disks = options.disk.map(parseDiskTap);
  checkNetTaps(nets);
  checkDiskTaps(disks);
  return { nets, disks };
}

/**
 * Reads a primary's taps, and which held output asks for a synchronization.
 *
 * @param options `syncOn` is `net,disk`, `net`, `disk` or `none`; the disks' modes decide if
 *   absent.
 * @throws {UsageError} As {@link parseTaps}, and for another word in `syncOn`.
 */
export function parsePrimaryTaps(
  options: PrimaryTapOptions & { readonly syncOn?: string },
): { taps: TapSettings; syncOn: SyncOn } {
  const taps: TapSettings = { ...parseTaps(options), diskSync: options.diskSync };
  const { syncOn } = options;
  return {
    taps,
    syncOn: syncOn === undefined
      ? defaultSyncOn(taps.disks)
      : parseWords("--sync-on", syncOn, ["net", "disk"]),
  };
}

/**
 * Reads some of the words, with commas between them, or `none`.
 *
 * @param option The option's name, for errors.
 * @throws {UsageError} Another word.
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
