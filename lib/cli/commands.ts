/**
 * Every command, and the file that runs it.
 *
 * Commands are imported when they are run, so that `--help` does not wait for them.
 */
import type { CommandContext } from "./context.ts";
import type {
  BenchCompareOptions,
  BenchOptions,
  DoctorOptions,
  DrillClientOptions,
  DrillOptions,
  FailoverOptions,
  GuardOptions,
  InspectOptions,
  ProtectOptions,
  RecvOptions,
  SendOptions,
  StatusOptions,
} from "./options.ts";

/** What runs a command: its file's `run`. A number is the exit code to end with; 0 without one. */
export type Run<Options> = (options: Options, context: CommandContext) => Promise<number | void>;

/** Every command, by name. */
export interface Commands {
  readonly send: Run<SendOptions>;
  readonly recv: Run<RecvOptions>;
  readonly protect: Run<ProtectOptions>;
  readonly failover: Run<FailoverOptions>;
  readonly status: Run<StatusOptions>;
  readonly inspect: Run<InspectOptions>;
  readonly doctor: Run<DoctorOptions>;
  readonly drill: Run<DrillOptions>;
  readonly bench: Run<BenchOptions>;
  readonly benchCompare: Run<BenchCompareOptions>;
  readonly guard: Run<GuardOptions>;
  readonly drillClient: Run<DrillClientOptions>;
  readonly benchClient: Run<DrillClientOptions>;
}

/** The real ones. */
export const COMMANDS: Commands = {
  send: async (options, context) => (await import("./send.ts")).run(options, context),
  recv: async (options, context) => (await import("./recv.ts")).run(options, context),
  protect: async (options, context) => (await import("./protect.ts")).run(options, context),
  failover: async (options, context) => (await import("./failover.ts")).run(options, context),
  status: async (options, context) => (await import("./status.ts")).run(options, context),
  inspect: async (options, context) => (await import("./inspect.ts")).run(options, context),
  doctor: async (options, context) => (await import("./doctor.ts")).run(options, context),
  drill: async (options, context) => (await import("./drill.ts")).run(options, context),
  bench: async (options, context) => (await import("./bench.ts")).run(options, context),
  benchCompare: async (options, context) =>
    (await import("./bench_compare.ts")).run(options, context),
  guard: async (options, context) => (await import("./guard.ts")).run(options, context),
  drillClient: async (options, context) =>
    (await import("./drill_client.ts")).run(options, context),
  benchClient: async (options, context) =>
    (await import("./bench_client.ts")).run(options, context),
};
