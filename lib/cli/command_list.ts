import type { CliCommand } from "./command.ts";
import { attach } from "./commands/attach.ts";
import { bench } from "./commands/bench.ts";
import { benchClient } from "./commands/bench_client.ts";
import { doctor } from "./commands/doctor.ts";
import { drill } from "./commands/drill.ts";
import { drillClient } from "./commands/drill_client.ts";
import { failover } from "./commands/failover.ts";
import { guard } from "./commands/guard.ts";
import { inspect } from "./commands/inspect.ts";
import { keygen } from "./commands/keygen.ts";
import { protect } from "./commands/protect.ts";
import { recv } from "./commands/recv.ts";
import { send } from "./commands/send.ts";
import { status } from "./commands/status.ts";

/** Every command, in the order of `kemari --help`. */
export const COMMANDS: readonly CliCommand[] = [
  send,
  recv,
  protect,
  failover,
  status,
  keygen,
  attach,
  inspect,
  doctor,
  drill,
  bench,
  benchClient,
  drillClient,
  guard,
];
