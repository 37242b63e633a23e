/** NICs and disks that go through kemari. Their names are the same on both sides. */
import type { Note } from "../help_tail.ts";
import { choice, optionGroup, type OptionsOf, repeatable } from "./option_group.ts";

const HEADING = "Disks and NICs";

/** Options of both ends. The values are strings in the form that lib/host parses. */
export const taps = optionGroup(HEADING, (command) =>
  command
    .addOption(
      repeatable("--net <tap>", "a NIC: NAME=unix:PATH,tap:IFNAME or NAME=unix:PATH,unix:PATH"),
    )
    .addOption(
      repeatable(
        "--disk <tap>",
        "a disk: NAME=PATH,unix:SOCK[,mode=MODE][,format=raw]; MODE is replicated (default) or shared",
      ),
    ));

/** Options of a primary's disks. */
export const primaryDisks = optionGroup(HEADING, (command) =>
  command.addOption(
    choice(
      "--disk-sync <what>",
      "whether replicated disks are copied to the secondary first",
      ["full", "none"],
      "full",
    ),
  ));

export type TapOptions = OptionsOf<readonly [typeof taps]>;

export type PrimaryTapOptions = OptionsOf<readonly [typeof taps, typeof primaryDisks]>;

/** Help on which images are served, and which are refused. */
export const IMAGES: Note = {
  title: "Images",
  parts: [
    {
      "mode=replicated": "Each host has an image of its own. Writes travel with their transaction.",
      "mode=shared": "One image, which both hosts can open.",
      "format=raw": "The image is served as it is, whatever its first bytes look like.",
    },
    `An image is a raw file or a block device. An image in another format (qcow2, vmdk, …) is
      refused, unless format=raw says that the guest's own data only looks like that format. Write
      format=raw for disks whose first bytes the guest writes, such as LUKS.`,
    `An image is locked as QEMU locks its own images: while kemari has it, QEMU, qemu-img and
      another kemari do not open it; while they have it, kemari refuses it. A shared image is for
      the two kemaris of one pair. A device that is mounted, or that is part of another device, is
      refused.`,
    `A secondary whose replicated disk is the primary's own image, reached over NFS, a SAN or a
      second name, is refused too. While both ends look for that, the image has an attribute
      user.kemari.mark, and a file lies beside it.`,
  ],
};

/** Help on how a primary's disks follow its checkpoints. */
export const DISKS: Note = {
  title: "Disks",
  parts: [
    `When a session begins, each replicated disk is compared with the secondary's copy while the VM
      runs, and the differences are sent. Until that is done the secondary cannot take over.`,
    `Writes wait in memory for their transaction. When more than 32M of one disk wait, a
      synchronization is asked for; above 128M the guest's requests are delayed by up to a quarter
      of a second; above 512M the secondary is given up. Requests never wait for a commit, because
      a checkpoint would then wait for them.`,
    `If a shared image refuses a write, the refusal is reported and the write is retried;
      meanwhile the guest reads what it wrote. Without a secondary the guest gets the error
      itself. A full disk at the secondary ends the protection until the disk has room.`,
  ],
};
