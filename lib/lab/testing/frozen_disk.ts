/** For tests: a file system whose writes can be made to stand still, in the kernel, until they may go on. */
import { exists } from "../provision/cache_dir.ts";

/** How long a freeze lasts that nobody ends: what it has stopped may be who was to end it. */
const LONGEST_S = 45;

/** Whether this machine can: root, loop devices, ext4. */
export async function canFreeze(): Promise<boolean> {
  return Deno.uid() === 0 && await exists("/dev/loop-control") &&
    await exists("/usr/sbin/mkfs.ext4") && await exists("/usr/sbin/fsfreeze");
}

/**
 * A small ext4 in a file, mounted on a loop device of its own. Frozen (FIFREEZE), it lets no write
 * through: whoever writes waits in the kernel, and no signal ends that. It is what a disk looks like
 * that does not answer.
 */
export class FrozenDisk implements AsyncDisposable {
  #watchdog: Deno.ChildProcess | undefined;

  private constructor(private readonly file: string, readonly folder: string) {}

  static async make(sizeBytes = 64 * 2 ** 20): Promise<FrozenDisk> {
    const file = await Deno.makeTempFile({ prefix: "kemari-frozen-", suffix: ".ext4" });
    const folder = await Deno.makeTempDir({ prefix: "kemari-frozen-" });
    await Deno.truncate(file, sizeBytes);
    await run("/usr/sbin/mkfs.ext4", "-q", "-F", file);
    await run("mount", "-o", "loop", file, folder);
    return new FrozenDisk(file, folder);
  }

  /** A file in it, of this size, with all its blocks. */
  async image(name: string, sizeBytes: number): Promise<string> {
    const path = `${this.folder}/${name}`;
    await Deno.writeFile(path, new Uint8Array(sizeBytes));
    return path;
  }

  async freeze(): Promise<void> {
    await run("/usr/sbin/fsfreeze", "-f", this.folder);
    this.#watchdog = new Deno.Command("setsid", {
      args: ["sh", "-c", `sleep ${LONGEST_S}; fsfreeze -u "$0"`, this.folder],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
  }

  /** @returns False where the freeze has ended by itself: somebody has waited for it. */
  async thaw(): Promise<boolean> {
    const watchdog = this.#watchdog;
    if (watchdog === undefined) return true;
    this.#watchdog = undefined;
    const wasFrozen = await succeeds("/usr/sbin/fsfreeze", "-u", this.folder);
    await succeeds("kill", "--", `-${watchdog.pid}`);
    await watchdog.status;
    return wasFrozen;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.thaw();
    // What has waited for the thaw may be about to end.
    await run("umount", "-l", this.folder);
    await Deno.remove(this.folder);
    await Deno.remove(this.file);
  }
}

/** Whether a thread of a process waits in the kernel, and no signal would end that. */
export function isHeld(pid = Deno.pid): boolean {
  return [...Deno.readDirSync(`/proc/${pid}/task`)].some(({ name }) => {
    try {
      return /\) D /.test(Deno.readTextFileSync(`/proc/${pid}/task/${name}/stat`));
    } catch {
      return false;
    }
  });
}

async function succeeds(program: string, ...args: string[]): Promise<boolean> {
  return (await new Deno.Command(program, { args }).output()).success;
}

async function run(program: string, ...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(program, { args }).output();
  if (!success) {
    throw new Error(`${program} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  }
}
