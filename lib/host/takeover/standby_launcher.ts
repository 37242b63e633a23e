import { getLogger } from "@logtape/logtape";
import type { BlockFile } from "../ram_dir/file_pages.ts";
import type { Instance } from "./rehearsal.ts";
import { planStandby } from "./standby_command.ts";
import { StandbyProcess } from "./standby_process.ts";

const log = getLogger(["kemari", "standby"]);

/** Starts QEMUs by an operator's command, and ends them. */
export class StandbyLauncher {
  readonly #command: string;
  readonly #folder: string;
  /** Those that have not ended. */
  readonly #processes = new Set<StandbyProcess>();
  #launches = 0;

  /**
   * @param command The operator's, without `-incoming`.
   * @param folder Where their sockets are; ours from now on.
   */
  constructor(command: string, folder: string) {
    this.#command = command;
    this.#folder = folder;
  }

  /**
   * Which of these files the command's QEMU maps.
   *
   * @throws {QemuError} if the command and the files do not belong together.
   */
  sharedOf(files: readonly BlockFile[]): readonly BlockFile[] {
    return planStandby(this.#command, files, { share: true, qmpPath: "" }).shared;
  }

  /**
   * Starts one, its RAM in these files, and waits until it answers.
   *
   * @param share Whether what it writes there stays.
   * @throws {KemariError} if it does not start; nothing of it is left.
   */
  async launch(files: readonly BlockFile[], share: boolean): Promise<Instance> {
    const name = `${this.#folder}/${this.#launches++}`;
    const qmpPath = `${name}.qmp`;
    const { command } = planStandby(this.#command, files, { share, qmpPath });
    const process = StandbyProcess.start(command, qmpPath, (line) => {
      log.info("standby: {line}", { line });
    });
    this.#processes.add(process);
    process.exitCode.then(() => this.#processes.delete(process));
    try {
      return { process, client: await process.connect(), socket: `${name}.in` };
    } catch (error) {
      await process.kill();
      throw error;
    }
  }

  /** Ends all of them. @throws {TransportError} if one does not end. */
  async killAll(): Promise<void> {
    await Promise.all([...this.#processes].map((process) => process.kill()));
  }

  /** Every QEMU that is left has its connections, and no other is started any more. */
  async removeSockets(): Promise<void> {
    await Deno.remove(this.#folder, { recursive: true }).catch(() => {});
  }
}
