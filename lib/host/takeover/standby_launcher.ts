import { getLogger } from "@logtape/logtape";
import type { BlockFile } from "../ram_dir/file_pages.ts";
import type { Instance } from "./rehearsal.ts";
import { planStandby } from "./standby_command.ts";
import { StandbyProcess } from "./standby_process.ts";

const log = getLogger(["kemari", "standby"]);

/** Starts and ends QEMUs by an operator's command. */
export class StandbyLauncher {
  readonly #command: string;
  readonly #folder: string;
  /** The QEMUs that have not ended. */
  readonly #processes = new Set<StandbyProcess>();
  #launches = 0;

  /**
   * @param command The operator's command, without `-incoming`.
   * @param folder The folder for their sockets, owned by this object.
   */
  constructor(command: string, folder: string) {
    this.#command = command;
    this.#folder = folder;
  }

  /**
   * The files among these that the command's QEMU maps.
   *
   * @throws {QemuError} if the command and the files do not belong together.
   */
  sharedOf(files: readonly BlockFile[]): readonly BlockFile[] {
    return planStandby(this.#command, files, { share: true, qmpPath: "" }).shared;
  }

  /**
   * Starts a QEMU with its RAM in these files, and waits until it answers.
   *
   * @param share Whether the QEMU's writes go to the files.
   * @throws {KemariError} if it does not start; no process of it is left.
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

  /** Ends all QEMUs. @throws {TransportError} if one of them does not end. */
  async killAll(): Promise<void> {
    await Promise.all([...this.#processes].map((process) => process.kill()));
  }

  /**
   * Removes the sockets: the QEMUs that are left have their connections, and no other will be
   * started.
   */
  async removeSockets(): Promise<void> {
    await Deno.remove(this.#folder, { recursive: true }).catch(() => {});
  }
}
