import assert from "node:assert/strict";
import { TransportError } from "../../errors.ts";
import { fullStream } from "../../qemu/testing/synthetic_stream.ts";
import { SecondaryTaps } from "../../replica/events/secondary_taps.ts";
import { Replica } from "../../replica/secondary/replica.ts";
import { ReplicaHome } from "../home/replica_home.ts";
import { until } from "../../lab/program/until.ts";
import { never } from "../system/never.ts";
import { Reactor } from "../system/reactor.ts";
import { SecondaryTapDevices } from "../taps/secondary_tap_devices.ts";
import { quoteWord } from "./standby_command.ts";
import { takeOver } from "./take_over.ts";
import { TakeoverClock } from "./takeover_clock.ts";

function isAlive(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(Deno.readTextFileSync(`/proc/${pid}/stat`));
  } catch {
    return false;
  }
}

Deno.test("a command that a failed takeover has started is ended: nobody waits for it", async () => {
  const folder = Deno.makeTempDirSync({ prefix: "kemari-take-over-" });
  const reactor = new Reactor();
  const replica = new Replica(1e8, undefined, new SecondaryTaps(new Map(), new Set()));
  const full = fullStream(1);
  replica.begin({ full: true, based: false });
  replica.receive(full, 0, full.length);
  replica.commit(1);
  const replay = { net: false, disk: false, input: false };
  const taps = await SecondaryTapDevices.open([], [], reactor, never, false);
  const note = `${folder}/pid`;
  // As a QEMU that has not taken its state yet: the end of its stdin is waited for.
  const exec = `echo $$ >${quoteWord(note)}; exec /bin/sh -c 'sleep 60; :' -incoming`;
  let pid = 0;
  try {
    const clock = new TakeoverClock("failover", 1, performance.now());
    const taking = takeOver(
      {
        settings: { exec, fenceTimeoutMs: 1, replay },
        replica,
        home: ReplicaHome.open({ listen: "", ramReserve: "none", hasSharedDisks: false }),
        taps,
        standby: undefined,
        reactor,
        progress: { isShown: false, set() {} },
      },
      clock,
      never,
    );
    const failed = assert.rejects(taking, /a tap has failed/);
    const cancel = reactor.every(5, () => {
      try {
        pid = Number(Deno.readTextFileSync(note));
      } catch {
        // It has not started.
      }
      if (pid > 0) reactor.fail(new TransportError("tap", "read", "a tap has failed"));
    });
    await failed;
    cancel();
    await until(() => !isAlive(pid), "it to end");
  } finally {
    if (pid > 0 && isAlive(pid)) Deno.kill(pid, "SIGKILL");
    taps.close();
    reactor.close();
    Deno.removeSync(folder, { recursive: true });
  }
});
