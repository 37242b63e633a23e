/**
 * Loads a state into a QEMU that is ended right after, to see whether the QEMU is the right
 * machine.
 */
import { KemariError, QemuError, TransportError } from "../../errors.ts";
import type { LoadableState } from "../../replica/secondary/compose_replica.ts";
import {
  compareShapes,
  describeChange,
  type MachineShape,
} from "../../replica/secondary/machine_shape.ts";
import type { BlockFile } from "../ram_dir/file_pages.ts";
import { delay } from "../system/delay.ts";
import type { QmpClient } from "../vm/qmp_client.ts";
import {
  compareBlocks,
  parseBlockAddresses,
  parseRamBlocks,
  standbyMismatch,
} from "./standby_command.ts";
import { awaitState, sendState, type StandbyProcess } from "./standby_process.ts";

const REHEARSAL_MS = 30_000;

/** A QEMU that answers over QMP. */
export interface Instance {
  readonly process: StandbyProcess;
  readonly client: QmpClient;
  /** The socket on which it is to listen for a state. */
  readonly socket: string;
}

/** The result of a rehearsal. */
export interface Rehearsed {
  readonly shape: MachineShape;
  readonly files: readonly BlockFile[];
  /** The offset of each RAM block that is in a file, within the region that holds it. */
  readonly addresses: ReadonlyMap<string, number>;
}

/**
 * Compares a QEMU with a state, and has it load the state.
 *
 * @param files The files with the state's RAM.
 * @param shared The files among them that QEMU maps.
 * @returns `undefined` if this QEMU cannot load device state alone: activation is cold then.
 * @throws {KemariError} the difference.
 */
export async function rehearse(
  { client, socket }: Instance,
  state: LoadableState,
  files: readonly BlockFile[],
  shared: readonly BlockFile[],
): Promise<Rehearsed | undefined> {
  const { shape } = state;
  const type = await client.execute("qom-get", { path: "/machine", property: "type" });
  const machine = String(type).replace(/-machine$/, "");
  if (shape.machine !== "unnamed" && machine !== shape.machine) {
    throw standbyMismatch(`its machine type is ${machine}, and the primary's is ${shape.machine}`);
  }
  const hmp = async (line: string) =>
    String(await client.execute("human-monitor-command", { "command-line": line }));
  compareBlocks(shape.blocks, parseRamBlocks(await hmp("info ramblock")));
  const regions = parseBlockAddresses(await hmp("info mtree"));
  const addresses = new Map(
    shared.map(({ name }) => [name, regions.get(name.replace(/^\/objects\//, "")) ?? 0]),
  );
  const known = await client.execute("query-migrate-capabilities") as { capability: string }[];
  const has = (name: string) => known.some(({ capability }) => capability === name);
  if (!has("x-ignore-shared")) return undefined;
  const capabilities = ["events", "x-ignore-shared", "late-block-activate"].filter(has);
  // A rehearsal must not show outside: no announcement, no lock on an image.
  await client.execute("migrate-set-parameters", { "announce-rounds": 0 });
  await awaitState(client, capabilities, socket);
  await sendState(client, socket, state.compose(addresses), REHEARSAL_MS);
  return { shape, files, addresses };
}

/**
 * The error for a state that could not be loaded: what has changed since the last one that could is
 * the best guess at the reason.
 */
export function nameChange(
  error: KemariError,
  before: MachineShape | undefined,
  now: MachineShape,
): KemariError {
  const change = before && compareShapes(before, now);
  if (change === undefined || !(error instanceof QemuError)) return error;
  // QEMU's answer to a command, with the command's name.
  const what = error.command === "standby" ? error.reason : error.message;
  return new QemuError(
    "standby",
    error.errorClass,
    `${
      describeChange(change)
    } since it was tried last, and the VM cannot be taken over now: ${what}`,
    {
      party: "standby",
      hint:
        "start recv again with a --standby that has the same devices; until then the VM goes on " +
        "at the primary, unprotected",
      cause: error,
    },
  );
}

/** If QEMU has ended, its own last words are the better reason. */
export async function explainFailure(
  error: unknown,
  instance: Instance | undefined,
): Promise<KemariError> {
  if (error instanceof QemuError && error.errorClass !== "GenericError") return error;
  if (instance !== undefined && !(error instanceof QemuError)) {
    await Promise.race([instance.process.exitCode, delay(200)]);
    if (instance.process.hasEnded) return await instance.process.failure("load");
  }
  if (error instanceof KemariError) return error;
  return new TransportError("--standby", "write", String((error as Error).message ?? error), {
    party: "standby",
  });
}
