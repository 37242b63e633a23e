/** Real QEMU processes for tests, the drill and the benchmarks. */

import { QemuError } from "../../errors.ts";
import { QmpClient } from "../../host/vm/qmp_client.ts";
import type { BootImages } from "../guest/guest.ts";
import { GuestAgent, type GuestResult } from "../guest/guest_agent.ts";
import { GuestConsole } from "../guest/guest_console.ts";
import { GuestPort, type PortReader } from "../guest/guest_port.ts";
import { READY_LINE } from "../guest/init_script.ts";
import { shellQuote } from "../provision/cache_dir.ts";
import { endTagged, forgetVm, rememberVm, VM_TAG } from "./vm_cleanup.ts";
import { delay } from "../../host/system/delay.ts";

/** How to start a VM. A pair that one migrates between must agree on all but name and incoming. */
export interface VmOptions {
  /** Path of the program: `QemuInstall.program`. */
  readonly qemu: string;
  /** Words in front of QEMU's command, such as those that run it in a network namespace. */
  readonly prefix?: readonly string[];
  /** For messages, and QEMU's `-name`. */
  readonly name: string;
  /** 256 if absent. */
  readonly memoryMiB?: number;
  /** `pc` if absent; a versioned name such as `pc-i440fx-7.2` for migration between versions. */
  readonly machine?: string;
  /** QEMU's `-accel`, with properties if need be: `kvm,dirty-ring-size=4096`. `tcg` if absent. */
  readonly accelerator?: string;
  /** The guest to boot; without one there is only the firmware. */
  readonly guest?: BootImages;
  /** More words for the guest's kernel command line, such as `kemari.count=1`. */
  readonly append?: string;
  /** More arguments: devices, drives, objects. There are no default devices. */
  readonly args?: readonly string[];
  /** QEMU's `-incoming`: `defer`, `fd:0`, `exec:…`, `unix:…`. */
  readonly incoming?: string;
  /** `piped` gives `Vm.stdin`; a path is opened (it may be a fifo). Default: nothing to read. */
  readonly stdin?: "piped" | { readonly path: string };
  /** Ends the VM when aborted. */
  readonly signal?: AbortSignal;
}

/**
 * A running QEMU. Whoever starts it owns it: `await using vm = await startVm(…)`, or `dispose()`.
 */
export class Vm implements AsyncDisposable {
  readonly console: GuestConsole;
  /** The second serial port, on which {@link agent} talks, and whoever is added to it. */
  readonly port: GuestPort;
  readonly agent: GuestAgent;
  private disposed: Promise<void> | undefined;

  private constructor(
    readonly name: string,
    /** Private folder of this VM; removed at the end. */
    readonly folder: string,
    /** The command as executed. */
    readonly commandLine: readonly string[],
    private readonly process: Deno.ChildProcess,
    private readonly stderrTail: StreamTail,
    private readonly consoleConn: Deno.Conn,
    private readonly agentConn: Deno.Conn,
  ) {
    this.console = new GuestConsole(`${name} console`);
    this.port = new GuestPort((bytes) => writeAll(agentConn, bytes));
    const lastWords = () => this.console.lastWords;
    this.agent = this.port.add(new GuestAgent(`${name} agent`, this.port.write, lastWords));
    void pump(consoleConn, this.console);
    void pump(agentConn, this.port);
  }

  /** QEMU's own process id. */
  get pid(): number {
    return this.process.pid;
  }

  /** QMP socket for whoever protects the VM; one client at a time. */
  get qmpPath(): string {
    return `${this.folder}/qmp`;
  }

  /** A second QMP socket, for the test itself. */
  get spareQmpPath(): string {
    return `${this.folder}/qmp-spare`;
  }

  /** Only with `stdin: "piped"`. */
  get stdin(): WritableStream<Uint8Array> {
    return this.process.stdin;
  }

  /** Resolves when QEMU has ended. */
  get status(): Promise<Deno.CommandStatus> {
    return this.process.status;
  }

  /** The last that QEMU said on stderr. */
  get stderr(): string {
    return this.stderrTail.text;
  }

  /** Waits until the guest's agent listens. */
  async ready(timeoutMs = 120_000): Promise<void> {
    await this.console.waitFor((line) => line.text.includes(READY_LINE), { timeoutMs });
  }

  /** Runs a shell command in the guest. */
  run(command: string, options: { timeoutMs?: number } = {}): Promise<GuestResult> {
    return this.agent.run(command, options);
  }

  /** Ends QEMU alone with SIGKILL, and waits until it is gone. */
  async kill9(): Promise<void> {
    killQuietly(this.process);
    await this.process.status;
  }

  /**
   * Ends QEMU and all that it started (`exec:` commands) at one blow, as a power cut of the whole
   * host would.
   */
  async powerCut(): Promise<void> {
    killQuietly(this.process);
    await endTagged(this.folder);
    await this.process.status;
  }

  /** Ends QEMU if it runs, what it started too, and removes all that belongs to it. May be called again. */
  dispose(): Promise<void> {
    this.disposed ??= (async () => {
      await this.powerCut();
      for (const conn of [this.consoleConn, this.agentConn]) closeQuietly(conn);
      await Deno.remove(this.folder, { recursive: true }).catch(() => {});
      forgetVm(this.process.pid);
    })();
    return this.disposed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /**
   * Starts QEMU and waits until it has connected its serial ports, so that no byte is lost.
   *
   * @throws {QemuError} With what QEMU said, if it ends instead.
   */
  static async start(options: VmOptions): Promise<Vm> {
    const folder = await Deno.makeTempDir({ prefix: "kemari-vm-" });
    if (options.signal?.aborted) {
      await Deno.remove(folder);
      throw options.signal.reason;
    }
    // QEMU connects to us: a socket that QEMU serves drops what is said before we connect.
    const listeners = ["console", "agent"].map((name) =>
      Deno.listen({ transport: "unix", path: `${folder}/${name}` })
    );
    const args = vmArguments(options, folder);
    let process: Deno.ChildProcess | undefined;
    try {
      process = spawn(options, args, folder);
      const child = process;
      rememberVm(child.pid, folder);
      options.signal?.addEventListener("abort", () => killQuietly(child), { once: true });
      const stderrTail = new StreamTail(child.stderr);
      const gone = child.status.then(async (status) => {
        // What QEMU started may keep stderr open for longer than QEMU lives.
        await Promise.race([stderrTail.ended, delay(LAST_WORDS_MS)]);
        throw new QemuError(
          "start",
          "Exited",
          `${options.name} ended with ${status.signal ?? status.code}: ${stderrTail.text.trim()}`,
        );
      });
      gone.catch(() => {});
      const [console, agent] = await Promise.race([
        Promise.all(listeners.map((listener) => listener.accept())),
        gone,
      ]);
      // The serial ports connect before devices are made; QMP greets when all is made.
      const greeted = QmpClient.connect(`${folder}/qmp-spare`, { timeoutMs: START_TIMEOUT_MS });
      // A connection that breaks means that QEMU ends: then its own words are the reason.
      await (await Promise.race([greeted.catch(() => gone), gone])).close();
      return new Vm(
        options.name,
        folder,
        [options.qemu, ...args],
        child,
        stderrTail,
        console,
        agent,
      );
    } catch (error) {
      if (process) {
        killQuietly(process);
        await endTagged(folder);
        await process.status;
        forgetVm(process.pid);
      }
      await Deno.remove(folder, { recursive: true }).catch(() => {});
      throw error;
    } finally {
      for (const listener of listeners) listener.close();
    }
  }
}

const START_TIMEOUT_MS = 30_000;
const LAST_WORDS_MS = 500;

/** Starts a VM; the same as `Vm.start`. */
export function startVm(options: VmOptions): Promise<Vm> {
  return Vm.start(options);
}

/** QEMU's arguments for `options`, with its sockets in `folder`. */
export function vmArguments(options: VmOptions, folder: string): string[] {
  const guest = options.guest;
  return [
    "-name",
    options.name,
    "-machine",
    options.machine ?? "pc",
    "-accel",
    options.accelerator ?? "tcg",
    "-m",
    String(options.memoryMiB ?? 256),
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    // Before the serial ports: when those have connected, QMP listens.
    "-qmp",
    `unix:${folder}/qmp,server=on,wait=off`,
    "-qmp",
    `unix:${folder}/qmp-spare,server=on,wait=off`,
    ...["console", "agent"].flatMap((name) => [
      "-chardev",
      `socket,id=${name},path=${folder}/${name}`,
      "-serial",
      `chardev:${name}`,
    ]),
    ...(guest
      ? [
        ...(guest.firmware === undefined ? [] : ["-bios", guest.firmware]),
        "-kernel",
        guest.kernel,
        ...(guest.initrd === undefined ? [] : ["-initrd", guest.initrd]),
        "-append",
        options.append ? `${guest.append} ${options.append}` : guest.append,
      ]
      : []),
    ...(options.args ?? []),
    ...(options.incoming === undefined ? [] : ["-incoming", options.incoming]),
  ];
}

function spawn(options: VmOptions, args: readonly string[], folder: string): Deno.ChildProcess {
  const stdin = options.stdin;
  const env = { [VM_TAG]: folder };
  const fromPath = typeof stdin === "object";
  const [program, ...words] = [...(options.prefix ?? []), options.qemu, ...args];
  // Deno cannot give a child an open file as its stdin; a shell can, and exec keeps the pid.
  const command = fromPath
    ? new Deno.Command("/bin/sh", {
      args: ["-c", `exec "$0" "$@" < ${shellQuote(stdin.path)}`, program, ...words],
      env,
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    })
    : new Deno.Command(program, {
      args: words,
      env,
      stdin: stdin === "piped" ? "piped" : "null",
      stdout: "null",
      stderr: "piped",
    });
  return command.spawn();
}

const TAIL_CHARACTERS = 4000;

/** Keeps the last of a stream while reading it to its end. */
class StreamTail {
  text = "";
  readonly ended: Promise<void>;

  constructor(stream: ReadableStream<Uint8Array>) {
    this.ended = this.read(stream).catch(() => {});
  }

  private async read(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      this.text = (this.text + decoder.decode(chunk, { stream: true })).slice(-TAIL_CHARACTERS);
    }
  }
}

async function pump(conn: Deno.Conn, sink: PortReader): Promise<void> {
  const chunk = new Uint8Array(16384);
  try {
    while (true) {
      const length = await conn.read(chunk);
      if (length === null) break;
      sink.receive(chunk.subarray(0, length));
    }
  } catch { /* The VM was killed or disposed of: the end, like any other. */ }
  sink.end();
}

async function writeAll(conn: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) done += await conn.write(bytes.subarray(done));
}

function killQuietly(process: Deno.ChildProcess): void {
  try {
    process.kill("SIGKILL");
  } catch { /* It has ended already. */ }
}

function closeQuietly(conn: Deno.Conn): void {
  try {
    conn.close();
  } catch { /* Closed already. */ }
}
