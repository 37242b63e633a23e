/**
 * Takeovers back and forth: a host dies, the other takes over, the dead host comes back as the
 * secondary with its old disk, and then the other host dies; with one client on one connection.
 */
import { formatWholeMs } from "../units.ts";
import { checkConnection } from "./checks.ts";
import {
  type FaultOutcome,
  type FaultRehearsal,
  moreAnswers,
  synchronize,
  takenOver,
} from "./faults.ts";
import { freezeSender } from "./freeze.ts";

/**
 * Carries out `takeovers` takeovers.
 *
 * @returns An outcome for each takeover; the last has the checks that end the VM.
 */
export async function pingPong(run: FaultRehearsal, takeovers: number): Promise<FaultOutcome[]> {
  const { hosts, client, wire, context } = run;
  const { narrate, random, signal } = context;
  const outcomes: FaultOutcome[] = [];
  for (let left = takeovers; left > 0; left--) {
    wire.restart();
    const before = await synchronize(run);
    const dying = hosts.hostOf("primary");
    const phase = await freezeSender(hosts, random.pick(context.settings.phases), random, signal);
    narrate(`kill -9: QEMU and kemari on the host "${dying}" (phase: ${phase})`);
    const receiver = await hosts.receiverStatus();
    const at = Date.now();
    await hosts.killPrimary();
    if (left === 1) {
      outcomes.push(await takenOver(run, { ...before, receiver }, at, phase, []));
      break;
    }
    const lastCount = client.last;
    await moreAnswers(run);
    const firstCount = client.acked.find(({ n }) => n > lastCount)?.n ?? 0;
    const outageMs = client.longestGapMs(at - 1000);
    narrate(`the client goes on: answer ${firstCount}, after a gap of ${formatWholeMs(outageMs)}`);
    outcomes.push({
      checks: [checkConnection(client), wire.check(dying)],
      phase,
      sender: before.sender,
      transaction: receiver.lastCommitted,
      commitAgeMs: receiver.lastCommittedAgeMs ?? 0,
      lastCount,
      firstCount,
      outageMs,
      silenceMs: wire.silenceMs,
    });
    narrate(`the host "${dying}" comes back as the secondary`);
    await hosts.changeRoles();
    const { taps } = await hosts.senderStatus();
    const { sizeBytes } = taps.disks[0];
    narrate(`protected again, the disk of ${sizeBytes / 2 ** 20} MiB is the same on both sides`);
  }
  return outcomes;
}
