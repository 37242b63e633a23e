/**
 * Routes whose TCP acknowledges at once.
 *
 * QEMU's COLO sends small messages back and forth with Nagle's algorithm on, and each waits for the
 * acknowledgement of the one before, which Linux puts off by 40 ms where nothing goes the other
 * way. A pair makes 11 checkpoints a second over such a connection, and some 350 where the route
 * says `quickack 1`. kemari switches Nagle's algorithm off and does not care.
 */
import { CABLE_IP, type LabHost, NetLab, netLabMissing } from "./net_lab.ts";
import { TransportError } from "../../errors.ts";

/** Both directions of loopback TCP. */
const LOOPBACK = ["local", "127.0.0.1", "dev", "lo", "table", "local"]
  .concat("proto", "kernel", "scope", "host", "src", "127.0.0.1");

/** Says of the cable between a lab's two hosts, for connections from now on, which kind it is. */
export async function setQuickAcks(lab: NetLab, quick: boolean): Promise<void> {
  for (const host of ["primary", "secondary"] as const) {
    const route = ["10.78.0.0/30", "dev", "sync0", "proto", "kernel", "scope", "link"];
    await changeRoute(lab, host, [...route, "src", CABLE_IP[host]], quick);
  }
}

/** A loopback of its own, where TCP acknowledges at once. */
export class QuickLoopback implements AsyncDisposable {
  private constructor(private readonly lab: NetLab) {}

  /** @returns Why there can be none here, or one. */
  static async make(): Promise<QuickLoopback | string> {
    const missing = await netLabMissing();
    if (missing !== undefined) return missing;
    const lab = await NetLab.make({ taps: [] });
    try {
      await changeRoute(lab, "wire", LOOPBACK, true);
    } catch (error) {
      await lab.dispose();
      throw error;
    }
    return new QuickLoopback(lab);
  }

  /**
   * Limits what goes over it, in both directions together.
   *
   * @param shape A queueing discipline, as tc has it.
   */
  async limit(...shape: string[]): Promise<void> {
    const words = ["tc", "qdisc", "replace", "dev", "lo", "root", ...shape] as const;
    const { code, stderr } = await this.lab.run("wire", ...words);
    if (code === 0) return;
    throw new TransportError("lo", "connect", `it cannot be limited: ${stderr.trim()}`);
  }

  /** Words that run a command where this is the loopback. */
  get prefix(): readonly string[] {
    return this.lab.prefix("wire");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.lab.dispose();
  }
}

async function changeRoute(
  lab: NetLab,
  side: LabHost | "wire",
  route: readonly string[],
  quick: boolean,
): Promise<void> {
  const option = quick ? ["quickack", "1"] : [];
  const { code, stderr } = await lab.run(side, "ip", "route", "change", ...route, ...option);
  if (code === 0) return;
  throw new TransportError(route[1], "connect", `its route cannot be changed: ${stderr.trim()}`);
}
