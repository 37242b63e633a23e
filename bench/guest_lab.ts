/**
 * The environment of the experiments on real guests: QEMU, guest, programs, network, and disk
 * images.
 */
import { TransportError } from "../lib/errors.ts";
import { makeKeyFile } from "../lib/host/keygen.ts";
import { ensureGuest, type GuestImages } from "../lib/lab/guest/guest.ts";
import { guestPrograms } from "../lib/lab/guest/guest_programs.ts";
import { CABLE_IP, type LabHost, NetLab, netLabMissing } from "../lib/lab/network/net_lab.ts";
import { ensureQemu, type QemuInstall } from "../lib/lab/provision/qemu.ts";
import { ensureTool } from "../lib/lab/provision/tools.ts";
import { endAllVms, leaveSignalsToCaller } from "../lib/lab/vms/vm_cleanup.ts";
import type { BenchContext, LinkRate } from "./bench_context.ts";
import { output } from "../lib/lab/program/lab_process.ts";
import { type KemariProgram, kemariProgram } from "../lib/lab/program/kemari_program.ts";
import { setQuickAcks } from "../lib/lab/network/quick_acks.ts";
import { atExit, WorkFolder } from "../lib/lab/program/work_folder.ts";

export const GUEST_MEMORY_MIB = 512;

/** Device of the sync link in both hosts' namespaces. */
const LINK_DEVICE = "sync0";
const PORT = 4000;

/**
 * Depth of the token buckets: what the rate moves in some milliseconds. Timers are that coarse, and
 * a smaller bucket would pass less than the rate.
 */
export const SHAPES: Readonly<Record<Exclude<LinkRate, "none">, readonly string[]>> = {
  "1G": ["rate", "1gbit", "burst", "512kb", "latency", "50ms"],
  "10G": ["rate", "10gbit", "burst", "5mb", "latency", "50ms"],
};

/**
 * Two hosts with a sync link between them, each in a network namespace of its own; without root
 * both are this host, and the link is its loopback.
 */
export class GuestLab implements AsyncDisposable {
  readonly #stack: AsyncDisposableStack;
  #images = 0;
  #hasKey = false;

  private constructor(
    stack: AsyncDisposableStack,
    readonly context: BenchContext,
    readonly qemu: QemuInstall,
    readonly guest: GuestImages,
    readonly kemari: KemariProgram,
    readonly folder: string,
    /** Absent without root. */
    readonly net: NetLab | undefined,
    /** Why there is no own network. */
    readonly netMissing: string | undefined,
    private readonly template: string,
    /** Size of every image. */
    readonly diskBytes: number,
  ) {
    this.#stack = stack;
  }

  /** @throws {KemariError} QEMU or the guest cannot be had. */
  static async make(context: BenchContext, diskMiB: number): Promise<GuestLab> {
    const { signal } = context;
    leaveSignalsToCaller();
    const options = { signal, onProgress: (text: string) => context.say(text) };
    const qemu = await ensureQemu("11.1", options);
    const extras = await guestPrograms(["iozone"], options);
    const guest = await ensureGuest({ ...options, extras });
    const mke2fs = await ensureTool("mke2fs", options);
    await using stack = new AsyncDisposableStack();
    stack.defer(atExit(endAllVms));
    const { path } = stack.use(new WorkFolder());
    const template = `${path}/template.img`;
    await Deno.writeFile(template, new Uint8Array(0));
    const diskBytes = diskMiB * 2 ** 20;
    await Deno.truncate(template, diskBytes);
    // Work that a file system delays until the mount would be measured with the workload.
    const whole = ["-E", "lazy_itable_init=0,lazy_journal_init=0"];
    await output(mke2fs, ["-q", "-F", "-t", "ext4", ...whole, template], signal);
    const missing = await netLabMissing();
    const net = missing === undefined ? stack.use(await NetLab.make({ hosts: {} })) : undefined;
    return new GuestLab(
      stack.move(),
      context,
      qemu,
      guest,
      kemariProgram(),
      path,
      net,
      missing,
      template,
      diskBytes,
    );
  }

  /** The links that can be measured over here. */
  links(wanted: readonly LinkRate[]): readonly LinkRate[] {
    return this.net === undefined ? ["none"] : wanted;
  }

  /** Limits the sync link, in both directions. Open connections stay open. */
  async shape(rate: LinkRate): Promise<void> {
    if (this.net === undefined) return;
    for (const host of ["primary", "secondary"] as const) {
      const qdisc = (...words: string[]) =>
        new Deno.Command("tc", {
          args: ["-n", this.net![host], "qdisc", ...words.slice(0, 1), "dev", LINK_DEVICE, "root"]
            .concat(words.slice(1)),
          stdout: "null",
          stderr: "piped",
        }).output();
      if (rate === "none") {
        // tc refuses if there is no limit to remove.
        await qdisc("del");
        continue;
      }
      const { success, stderr } = await qdisc("replace", "tbf", ...SHAPES[rate]);
      if (success) continue;
      throw new TransportError(
        LINK_DEVICE,
        "listen",
        `the link cannot be limited: ${new TextDecoder().decode(stderr).trim()}`,
        { hint: "--link none measures without a limit" },
      );
    }
  }

  /** Sets whether TCP over the sync link acknowledges at once, from the next connection on. */
  async setQuickAcks(quick: boolean): Promise<void> {
    if (this.net !== undefined) await setQuickAcks(this.net, quick);
  }

  /** Words that run a command on one of the hosts. */
  on(host: LabHost): readonly string[] {
    return this.net?.prefix(host) ?? [];
  }

  /** Words that start kemari on one of the hosts. */
  kemariOn(host: LabHost, ...args: string[]): string[] {
    return [...this.on(host), ...this.kemari.command, ...args, "--quiet", "--progress", "never"];
  }

  /** An unused address on the secondary. */
  secondaryAddress(): string {
    if (this.net !== undefined) return `${CABLE_IP.secondary}:${PORT}`;
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    return `127.0.0.1:${listener.addr.port}`;
  }

  /** The security arguments of both ends of a link: with `--key`, a key that is made for them. */
  security(): readonly string[] {
    if (!this.context.key) return ["--plain"];
    const path = `${this.folder}/key`;
    if (!this.#hasKey) makeKeyFile(path, "bench");
    this.#hasKey = true;
    return ["--key", path];
  }

  /**
   * Bytes that went over the sync link in both directions, as the primary's device counts them,
   * headers of TCP and below included.
   *
   * @param pid A process on the primary.
   * @returns Undefined if there is no own link.
   */
  linkBytes(pid: number): number | undefined {
    if (this.net === undefined) return undefined;
    const text = Deno.readTextFileSync(`/proc/${pid}/net/dev`);
    const fields = new RegExp(`${LINK_DEVICE}: *(.*)`).exec(text)?.[1].split(/ +/).map(Number);
    return fields === undefined ? undefined : fields[0] + fields[8];
  }

  /** Makes a disk image with an empty file system; it is removed with the folder. */
  async image(): Promise<string> {
    const path = `${this.folder}/disk-${++this.#images}.img`;
    await output("cp", ["--sparse=always", this.template, path], this.context.signal);
    return path;
  }

  /** Conditions that must be equal for two runs to be comparable. */
  conditions(link: string): Record<string, string> {
    return {
      qemu: this.qemu.fullVersion,
      accelerator: "TCG",
      guest: `${GUEST_MEMORY_MIB} MiB, Linux ${this.guest.kernelVersion}, virtio-blk, virtio-net`,
      link: this.net === undefined ? link : `${link}, quick acknowledgements`,
    };
  }

  /** Notes on the link, for the reader. */
  linkNotes(): string[] {
    if (this.net === undefined) {
      return [`the sync link is loopback TCP without a limit: ${this.netMissing}`];
    }
    return [
      "the sync link is a veth pair between two network namespaces, limited by tc tbf in both " +
      "directions where a rate is given: it has a rate, but none of a network's latency; TCP over " +
      "it acknowledges at once where no row says otherwise",
    ];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

/** What the experiments on this machine's guests cannot show. */
export const GUEST_LIMITS: readonly string[] = [
  "absolute rates: without KVM guest and QEMU are translated (TCG), so ratios within a run count",
  "two hosts: guest, QEMU, both ends of kemari and the link share the cores of one machine, so " +
  "what protection costs in CPU time it takes from the guest",
];
