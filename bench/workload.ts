/** The workloads of measured guests. */
import { TransportError } from "../lib/errors.ts";
import { selfCommand } from "../lib/host/system/self_command.ts";
import type { GuestRun } from "./guest_run.ts";
import { IOZONE_FILE, iozoneCommand } from "./iozone_program.ts";
import { WEB_CLIENTS, type WebReport } from "./web_client.ts";
import { atExit, endQuietly } from "../lib/lab/program/work_folder.ts";
import { delay } from "../lib/host/system/delay.ts";

/** A running workload. */
interface RunningWorkload extends AsyncDisposable {
  /** Units of work done so far. */
  done(): Promise<number>;
  /** Ends the workload; may be called once. */
  stop(): Promise<void>;
}

/** A kind of workload. */
export interface Workload {
  readonly name: string;
  /** The unit of its work, in the singular; absent if it does nothing. */
  readonly unit?: string;
  readonly about: string;
  /**
   * A command that the guest runs once, before it is protected: under many syncs it would take
   * long.
   */
  readonly before?: string;
  /** @returns When the work has begun. */
  start(run: GuestRun): Promise<RunningWorkload>;
}

const IDLE: Workload = {
  name: "idle",
  about: "a booted guest that does nothing",
  start: () =>
    Promise.resolve({
      done: () => Promise.resolve(0),
      stop: () => Promise.resolve(),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    }),
};

const STOP_FILE = "/mem/stop-iozone";
const OVER_FILE = "/mem/iozone-is-over";
const LOG_FILE = "/mem/iozone.log";
const SECTOR_BYTES = 512;
/** Sets `sectors` to the number of sectors written to the disk, the seventh number in the file. */
const COUNT_SECTORS = "read -r _ _ _ _ _ _ sectors _ < /sys/block/vda/stat";

/** @param fileBytes Size of iozone's file. */
function iozoneWorkload(fileBytes: number): Workload {
  return {
    name: "iozone",
    unit: "MB written",
    about: `iozone over and over: write, rewrite, read, reread, random; ${fileBytes / 1024} KiB, ` +
      "records of 4 KiB, direct I/O",
    async start(run) {
      const all = [0, 1, 2].map((test) => iozoneCommand(test, fileBytes, 4096)).join(" && ");
      // No process is started to check whether iozone writes: that is too slow in a guest that
      // hardly runs.
      await run.run(
        `rm -f ${STOP_FILE} ${OVER_FILE}; ${COUNT_SECTORS}; before=$sectors; ` +
          `(while [ ! -e ${STOP_FILE} ]; do ${all} || break; done > ${LOG_FILE} 2>&1; ` +
          `touch ${OVER_FILE}) & ` +
          `while [ $sectors = $before ] && [ ! -e ${OVER_FILE} ]; do sleep 0.1; ${COUNT_SECTORS}; done`,
      );
      const stop = () =>
        run.run(
          // If iozone has ended by itself, that is a failure. The round is not waited for: under
          // many syncs it takes long.
          `[ -e ${OVER_FILE} ] && { tail -n 20 ${LOG_FILE}; exit 1; }; touch ${STOP_FILE}; ` +
            `killall -q -9 iozone; while [ ! -e ${OVER_FILE} ]; do sleep 0.1; done; ` +
            `rm -f ${IOZONE_FILE}`,
        ).then(() => {});
      return {
        async done() {
          const sectors = await run.run(`${COUNT_SECTORS}; echo $sectors`);
          return Number(sectors) * SECTOR_BYTES / 1e6;
        },
        stop,
        // The guest ends with its VM.
        [Symbol.asyncDispose]: () => Promise.resolve(),
      };
    },
  };
}

const PORT = 80;
const PAGE_BYTES = 8192;

const WEB: Workload = {
  name: "request/response",
  unit: "request",
  about:
    `${WEB_CLIENTS} clients outside of the guest, each with one request at a time for a page ` +
    `of ${PAGE_BYTES / 1024} KiB from busybox's httpd, over a TCP connection of its own`,
  before: `mkdir -p /mem/www && head -c ${PAGE_BYTES} /dev/urandom > /mem/www/index.html && ` +
    `httpd -p ${PORT} -h /mem/www`,
  async start(run) {
    const { net } = run.lab;
    if (net === undefined) throw new TransportError("client", "connect", run.lab.netMissing!);
    const client = new WebClient([
      ...net.prefix("client"),
      ...selfCommand(["bench-client", net.guestIp, `${PORT}`]),
    ]);
    await client.answered(run.lab.context.signal);
    return client;
  },
};

/** All workloads, except those that need an own network if there is none. */
export function workloads(fileBytes: number, hasNetwork: boolean): readonly Workload[] {
  return [IDLE, iozoneWorkload(fileBytes), ...(hasNetwork ? [WEB] : [])];
}

/** The client's process and its report. */
class WebClient implements RunningWorkload {
  readonly #process: Deno.ChildProcess;
  readonly #reading: Promise<void>;
  readonly #forget: () => void;
  #requests = 0;
  #isOver = false;

  constructor([program, ...args]: readonly string[]) {
    this.#process = new Deno.Command(program, {
      args,
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#forget = atExit(() => endQuietly(this.#process));
    this.#reading = this.#read();
  }

  /** Waits for the first answer. */
  async answered(signal: AbortSignal): Promise<void> {
    for (let attempt = 0; this.#requests === 0; attempt++) {
      signal.throwIfAborted();
      if (attempt >= 1000) {
        await this[Symbol.asyncDispose]();
        throw new TransportError("guest", "connect", "its web server does not answer");
      }
      await delay(20);
    }
  }

  done(): Promise<number> {
    return Promise.resolve(this.#requests);
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#process.stdin.close().catch(() => {});
    await this.#end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    endQuietly(this.#process);
    await this.#process.stdin.close().catch(() => {});
    await this.#end();
  }

  async #end(): Promise<void> {
    await this.#process.status;
    await this.#reading;
    this.#forget();
  }

  async #read(): Promise<void> {
    let text = "";
    for await (const part of this.#process.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (text + part).split("\n");
      text = lines.pop()!;
      for (const line of lines) this.#requests += (JSON.parse(line) as WebReport).latencyMs.length;
    }
  }
}
