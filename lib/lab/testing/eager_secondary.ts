/** For tests: a secondary that takes over at a loss, and what shows that it did. */
import { type KemariPair, type PairedVm, PATIENCE } from "./kemari_pair.ts";
import { KemariProcess } from "../program/kemari_process.ts";
import { until } from "../program/until.ts";

/** `kemari recv --on-loss activate`, whose fence makes a file; the VM that it starts is nobody's. */
export class EagerSecondary {
  readonly #mark: string;

  private constructor(readonly recv: KemariProcess, folder: string) {
    this.#mark = `${folder}/fenced`;
  }

  /** Starts it, owned by the pair; it listens when this returns. */
  static async start(
    pair: KemariPair<PairedVm>,
    ...options: string[]
  ): Promise<EagerSecondary> {
    const words = ["recv", pair.link, "--control", pair.recvControl, "--on-loss", "activate"];
    const fence = ["--fence", `touch ${pair.folder}/fenced`, "--exec", "cat >/dev/null"];
    const recv = pair.own(new KemariProcess([...words, ...fence, ...PATIENCE, ...options]));
    await recv.listening();
    return new EagerSecondary(recv, pair.folder);
  }

  /** Whether it has fenced the primary. */
  get hasFenced(): boolean {
    try {
      Deno.lstatSync(this.#mark);
      return true;
    } catch {
      return false;
    }
  }

  async untilFenced(): Promise<void> {
    await until(() => this.hasFenced, "the takeover");
  }
}
