import { getLogger } from "@logtape/logtape";
import { QemuError } from "../../errors.ts";
import type { QmpCommand } from "../../qmp/codec.ts";
import {
  type HeldPaths,
  judgeOutside,
  OUTSIDE_QUERIES,
  type OutsideOutput,
  type OutsideReplies,
  sayOutside,
} from "../../qmp/outside_output.ts";
import type { QmpClient } from "./qmp_client.ts";
import { parseQmpAddress } from "./qmp_address.ts";
import type { Reactor } from "../system/reactor.ts";

const log = getLogger(["kemari", "protect"]);

/** How often to look for NICs that were plugged in meanwhile: QEMU has no event for that. */
const LOOK_MS = 5000;

/**
 * Asks QEMU which of its VM's output does not go through kemari.
 *
 * @param held What goes through kemari; undefined if that is not known.
 * @throws {TransportError} QEMU is gone, or does not answer.
 */
export async function askOutside(qmp: QmpClient, held?: HeldPaths): Promise<OutsideOutput> {
  const replies: { -readonly [name in keyof OutsideReplies]: unknown } = {};
  const queries = Object.entries(OUTSIDE_QUERIES) as [keyof OutsideReplies, QmpCommand][];
  for (const [name, query] of queries) replies[name] = await ask(qmp, query);
  return judgeOutside(replies, held);
}

/** @returns Undefined where this QEMU refuses the question. */
async function ask(qmp: QmpClient, query: QmpCommand): Promise<unknown> {
  try {
    return await qmp.run(query);
  } catch (error) {
    if (error instanceof QemuError) return undefined;
    throw error;
  }
}

/**
 * Warns, once for each, of the ways out of a protected VM that do not go through kemari, also of
 * those that are plugged in later.
 */
export class OutsideWatch {
  readonly #qmp: QmpClient;
  readonly #held: () => HeldPaths;
  readonly #told = new Set<string>();
  #found: OutsideOutput | null = null;
  #isAsking = false;
  #network = "";
  #stop: () => void = () => {};

  /** @param taps What goes through kemari. */
  constructor(qmp: QmpClient, taps: { readonly heldPaths: HeldPaths }) {
    this.#qmp = qmp;
    this.#held = () => {
      const { nets, ...others } = taps.heldPaths;
      return { ...others, nets: nets.map(absolute), monitor: monitorOf(qmp.path) };
    };
  }

  /** What was found last; null before the first look. */
  get found(): OutsideOutput | null {
    return this.#found;
  }

  /** Looks now, and warns of what is new. @throws {TransportError} */
  async look(): Promise<void> {
    const found = await askOutside(this.#qmp, this.#held());
    this.#found = found;
    for (const sentence of sayOutside(found)) {
      if (this.#told.has(sentence)) continue;
      this.#told.add(sentence);
      log.warn("{sentence}", { sentence });
    }
  }

  /** Looks every few seconds. If QEMU does not answer, other code deals with that. */
  begin(reactor: Reactor): void {
    this.#stop = reactor.every(LOOK_MS, () => {
      if (this.#isAsking) return;
      this.#isAsking = true;
      this.#lookAgain().catch(() => {}).finally(() => this.#isAsking = false);
    });
  }

  /**
   * Listing all devices of a large machine takes QEMU some 3 ms, listing its network half a
   * millisecond.
   */
  async #lookAgain(): Promise<void> {
    const network = await ask(this.#qmp, OUTSIDE_QUERIES.network);
    const now = `${network} ${this.#held().connected}`;
    if (now === this.#network) return;
    await this.look();
    this.#network = now;
  }

  end(): void {
    this.#stop();
  }
}

/** QEMU reports paths as it was given them, which is mostly from the root on. */
function absolute(path: string): string {
  return path.startsWith("/") ? path : `${Deno.cwd()}/${path}`;
}

function monitorOf(text: string): string | undefined {
  const address = parseQmpAddress(text);
  return address.kind === "unix" ? absolute(address.path) : undefined;
}
