import assert from "node:assert/strict";
import { shellQuote } from "../../lab/provision/cache_dir.ts";
import { StandbyProcess } from "./standby_process.ts";
import { until } from "../../lab/program/until.ts";

interface Stat {
  readonly state: string;
  readonly parent: number;
  readonly group: number;
}

function statOf(pid: number): Stat | undefined {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    const [state, parent, group] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return { state, parent: Number(parent), group: Number(group) };
  } catch {
    return undefined;
  }
}

function readPid(path: string): number {
  try {
    return Number(Deno.readTextFileSync(path));
  } catch {
    return 0;
  }
}

Deno.test("a dead process that nobody outside of a standby's group looks at does not keep it alive", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-standby-" });
  let stranger = 0;
  let standby: StandbyProcess | undefined;
  try {
    // A process of the group, whose parent leaves the group and never asks how it ended.
    const [dead, parent] = [`${folder}/dead`, `${folder}/parent`].map(shellQuote);
    // It ends when its parent has left: a shell may ask how a child ended that ends before.
    const waits = "until read -r _ _ _ _ group _ < /proc/$$/stat && [ $group = $$ ]; " +
      "do sleep 0.02; done";
    const inner = `echo $$ > ${parent}; (${waits}) & echo $! > ${dead}; exec setsid sleep 60`;
    standby = StandbyProcess.start(
      `/bin/sh -c ${shellQuote(inner)} & exec sleep 60`,
      `${folder}/qmp`,
      () => {},
    );
    const zombie = () => readPid(`${folder}/dead`);
    const group = standby.pid;
    await until(() => statOf(zombie())?.state === "Z", "a process to end");
    stranger = readPid(`${folder}/parent`);
    await until(() => statOf(stranger)?.group === stranger, "its parent to leave the group");
    assert.deepEqual(statOf(zombie()), { state: "Z", parent: stranger, group });
    await standby.kill();
    assert.equal(statOf(zombie())?.state, "Z");
    assert.equal(statOf(group), undefined);
  } finally {
    if (statOf(stranger)?.group === stranger) Deno.kill(stranger, "SIGKILL");
    await standby?.kill();
    await Deno.remove(folder, { recursive: true });
  }
});
