/**
 * A register that a command of the operator reads and changes, for stores that kemari does not
 * support.
 *
 * The command is a line for `/bin/sh`, and finds in its environment:
 *
 * | name                        | value                                                            |
 * | --------------------------- | ---------------------------------------------------------------- |
 * | `KEMARI_ARBITER_DO`         | `read` or `swap`                                                 |
 * | `KEMARI_ARBITER_VM`         | the VM's name in the register                                    |
 * | `KEMARI_ARBITER_FROM`       | swap: the text that must be there; empty: there must be none     |
 * | `KEMARI_ARBITER_TO`         | swap: the text that is to be there                               |
 * | `KEMARI_ARBITER_GENERATION` | swap: the generation of the latter                               |
 * | `KEMARI_ARBITER_SIDE`       | this side's name                                                 |
 *
 * `swap` exits with 0 if the register holds TO, also if it did before; with 1 if the register holds
 * something else than FROM and TO, and this swap will not be made later; with any other code if the
 * result is unknown. `read` prints the register's text, or nothing if there is none, and exits with
 * 0.
 */
import type { Answer, Ask } from "../../arbiter/claim.ts";
import { encodeRegister, isEqual, MAX_REGISTER_BYTES } from "../../arbiter/register.ts";
import { endTree } from "../system/process_tree.ts";
import type { ArbiterStore } from "./arbiter_store.ts";
import { registerAnswer } from "./etcd_store.ts";

const COMMAND_MS = 5000;

export interface ExecSettings {
  readonly name: string;
  readonly command: string;
  readonly vm: string;
  readonly side: string;
  /** How long the command may take, in milliseconds. */
  readonly commandMs?: number;
}

export class ExecStore implements ArbiterStore {
  readonly name: string;
  readonly #settings: ExecSettings;

  constructor(settings: ExecSettings) {
    this.name = settings.name;
    this.#settings = settings;
  }

  async ask(ask: Ask, signal: AbortSignal): Promise<Answer> {
    if (ask.do === "read") return await this.#read(signal);
    const { code, why } = await this.#run({
      KEMARI_ARBITER_DO: "swap",
      KEMARI_ARBITER_FROM: ask.from === undefined ? "" : encodeRegister(ask.from),
      KEMARI_ARBITER_TO: encodeRegister(ask.to),
      KEMARI_ARBITER_GENERATION: String(ask.to.generation),
    }, signal);
    if (code === 0) return { is: "won" };
    if (code !== 1) return { is: "unknown", why };
    const answer = await this.#read(signal);
    return answer.is === "current" && isEqual(answer.register, ask.to) ? { is: "won" } : answer;
  }

  close(): void {}

  async #read(signal: AbortSignal): Promise<Answer> {
    const { code, why, text } = await this.#run({ KEMARI_ARBITER_DO: "read" }, signal);
    if (code !== 0) return { is: "unknown", why };
    const line = text.replace(/\n$/, "");
    return line === "" ? { is: "current", register: undefined } : registerAnswer(line);
  }

  async #run(
    env: Record<string, string>,
    signal: AbortSignal,
  ): Promise<{ code: number; why: string; text: string }> {
    signal.throwIfAborted();
    const { command, vm, side, commandMs = COMMAND_MS } = this.#settings;
    const timeout = AbortSignal.timeout(commandMs);
    const ended = AbortSignal.any([signal, timeout]);
    const child = new Deno.Command("/bin/sh", {
      args: ["-c", command],
      env: { ...env, KEMARI_ARBITER_VM: vm, KEMARI_ARBITER_SIDE: side },
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    const kill = () => endTree(child.pid);
    ended.addEventListener("abort", kill);
    const [text, status] = await Promise.all([readStart(child.stdout), child.status]);
    ended.removeEventListener("abort", kill);
    signal.throwIfAborted();
    const why = timeout.aborted
      ? `the command took longer than ${commandMs} ms`
      : `the command exited with ${status.code}`;
    return { code: timeout.aborted ? -1 : status.code, why, text };
  }
}

/**
 * The part of the output that is kept, a little more than a register; the rest is read and dropped,
 * so that the command can end.
 */
async function readStart(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let lengthBytes = 0;
  for await (const part of stream) {
    if (lengthBytes <= MAX_REGISTER_BYTES) parts.push(part);
    lengthBytes += part.length;
  }
  return await new Blob(parts).text();
}
