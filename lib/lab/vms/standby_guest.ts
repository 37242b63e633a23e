/** For tests and benchmarks: a guest whose QEMU somebody else starts, by a shell command. */
import { TransportError } from "../../errors.ts";
import { GuestAgent, type GuestResult } from "../guest/guest_agent.ts";
import { GuestConsole } from "../guest/guest_console.ts";
import { GuestPort } from "../guest/guest_port.ts";
import { shellQuote } from "../provision/cache_dir.ts";
import { vmArguments, type VmOptions } from "./vm.ts";
import { delay } from "../../host/system/delay.ts";

/** A VM as far as it can be heard, asked and ended, whoever started it. */
export interface RunningVm {
  readonly name: string;
  readonly console: GuestConsole;
  /** QEMU's own process id. */
  readonly pid: number;
  /** A second QMP socket, for the test itself. */
  readonly spareQmpPath: string;
  /** Resolves when QEMU has ended. */
  readonly status: Promise<unknown>;
  run(command: string, options?: { timeoutMs?: number }): Promise<GuestResult>;
  /** Ends QEMU and all that it started at one blow. */
  powerCut(): Promise<void>;
}

/**
 * The console and agent of a QEMU that is started by others, and may be started several times: each
 * one connects anew, and the last one counts. Disposing of it ends those that are left.
 */
export class StandbyGuest implements RunningVm, AsyncDisposable {
  readonly console: GuestConsole;
  /** As `Vm.port`: of the QEMU that connected last. */
  readonly port: GuestPort;
  readonly #agent: GuestAgent;
  readonly #listeners: Deno.Listener[];
  readonly #connections = new Set<Deno.Conn>();
  #agentConnection: Deno.Conn | undefined;

  private constructor(readonly folder: string, readonly command: string, name: string) {
    this.console = new GuestConsole(`${name} console`);
    this.port = new GuestPort(async (bytes) => {
      for (let at = 0; at < bytes.length;) {
        at += await this.#agentConnection!.write(bytes.subarray(at));
      }
    });
    const lastWords = () => this.console.lastWords;
    this.#agent = this.port.add(new GuestAgent(`${name} agent`, this.port.write, lastWords));
    this.#listeners = ["console", "agent"].map((port) =>
      Deno.listen({ transport: "unix", path: `${folder}/${port}` })
    );
    void this.#accept(this.#listeners[0], this.console, () => {});
    void this.#accept(this.#listeners[1], this.port, (connection) => {
      this.#agentConnection = connection;
    });
  }

  /** @param options As for a VM of our own; without `incoming` and `stdin`. */
  static async prepare(options: VmOptions): Promise<StandbyGuest> {
    const folder = await Deno.makeTempDir({ prefix: "kemari-guest-" });
    const command = [options.qemu, ...vmArguments(options, folder)].map(shellQuote).join(" ");
    return new StandbyGuest(folder, command, options.name);
  }

  get name(): string {
    return "standby";
  }
  /** Its QMP socket for whoever protects it next. */
  get qmpPath(): string {
    return `${this.folder}/qmp`;
  }

  get spareQmpPath(): string {
    return `${this.folder}/qmp-spare`;
  }

  /** @throws {TransportError} if none runs. */
  get pid(): number {
    const [pid] = processesOf(this.folder, true);
    if (pid === undefined) throw new TransportError(this.name, "spawn", "no QEMU runs");
    return pid;
  }

  /** Resolves when the QEMU that runs now has ended. */
  get status(): Promise<void> {
    const { pid } = this;
    return (async () => {
      while (processesOf(this.folder, true).includes(pid)) {
        await delay(20);
      }
    })();
  }

  async powerCut(): Promise<void> {
    for (const pid of processesOf(this.folder)) endQuietly(pid);
    while (processesOf(this.folder, true).length > 0) {
      await delay(5);
    }
  }

  run(command: string, options: { timeoutMs?: number } = {}): Promise<GuestResult> {
    return this.#agent.run(command, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const listener of this.#listeners.splice(0)) listener.close();
    for (const connection of this.#connections) closeQuietly(connection);
    for (const pid of processesOf(this.folder)) endQuietly(pid);
    await Deno.remove(this.folder, { recursive: true }).catch(() => {});
  }

  async #accept(
    listener: Deno.Listener,
    sink: { receive(bytes: Uint8Array): void },
    onConnection: (connection: Deno.Conn) => void,
  ): Promise<void> {
    try {
      for await (const connection of listener) {
        this.#connections.add(connection);
        onConnection(connection);
        void this.#pump(connection, sink);
      }
    } catch {
      // Closed, by us.
    }
  }

  async #pump(connection: Deno.Conn, sink: { receive(bytes: Uint8Array): void }): Promise<void> {
    const chunk = new Uint8Array(16384);
    try {
      for (;;) {
        const length = await connection.read(chunk);
        if (length === null) break;
        sink.receive(chunk.subarray(0, length));
      }
    } catch {
      // Its QEMU has ended, or we have.
    }
    this.#connections.delete(connection);
    closeQuietly(connection);
  }
}

/**
 * The processes whose command line names this folder's QMP socket.
 *
 * @param itself Only QEMU itself, and not the shells around it.
 */
function processesOf(folder: string, itself = false): number[] {
  return [...Deno.readDirSync("/proc")].map(({ name }) => Number(name)).filter((pid) => {
    if (!(pid > 0) || pid === Deno.pid) return false;
    try {
      const command = Deno.readTextFileSync(`/proc/${pid}/cmdline`);
      if (itself) return command.split("\0").includes(`unix:${folder}/qmp,server=on,wait=off`);
      return command.includes("qemu") && command.includes(`${folder}/qmp`) &&
        !command.includes("recv");
    } catch {
      return false;
    }
  });
}

function endQuietly(pid: number): void {
  try {
    Deno.kill(pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}

function closeQuietly(connection: Deno.Conn): void {
  try {
    connection.close();
  } catch {
    // Closed already.
  }
}
