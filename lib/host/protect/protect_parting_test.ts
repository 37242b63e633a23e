/** Parting over real links: what a secondary makes of a primary that leaves it. */
import assert from "node:assert/strict";
import { TransportError } from "../../errors.ts";
import type { Address } from "../system/address.ts";
import { cString, libc } from "../system/libc.ts";
import { tooSlow } from "../link/lost_secondary.ts";
import { socketConnection } from "../link/peer_connection.ts";
import { LinkGuard } from "../tls/link_guard.ts";
import { SenderLink } from "../link/sender_link.ts";
import type { Watch } from "../system/reactor.ts";
import { Stage, tinyStream } from "../link/testing/link_stage.ts";
import { askSecondary } from "./ask_secondary.ts";
import { type Parted, partFromSecondary, type Parting } from "./parting.ts";
import { never } from "../system/never.ts";

/** Patient, so that no pause of a busy machine is taken for a loss. */
const GRACE_MS = 10_000;
/** After half of the grace in silence, a primary may have been taken for dead. */
const HICCUP_MS = 6000;

const OPTIONS = {
  commit: "async",
  stream: "snapshots",
  maxInFlightBytes: 2 ** 26,
  heartbeatMs: 200,
  graceMs: GRACE_MS,
  software: "test",
} as const;

/** A primary whose secondary has its first transaction, and will take over at a loss. */
async function protectedPair({ graceMs = GRACE_MS, isMute = false } = {}) {
  const stage = await Stage.open({ onLoss: "activate", graceMs });
  const peer = socketConnection(await stage.connect(), "the socket");
  const { watch, every } = stage.reactor;
  const watches: Watch[] = [];
  stage.reactor.watch = (fd, handlers) => {
    const made = watch.call(stage.reactor, fd, handlers);
    watches.push(made);
    return made;
  };
  if (isMute) stage.reactor.every = () => () => {};
  // By this clock the primary stands still when a test says so, and only then.
  let bootTimeMs = 0;
  const link = new SenderLink(stage.reactor, peer, { ...OPTIONS, bootTimeMs: () => bootTimeMs });
  Object.assign(stage.reactor, { watch, every });
  const file = `${stage.folder}/stream`;
  Deno.writeFileSync(file, tinyStream(1));
  const input = libc().open(cString(file), 0, 0);
  link.attach({ input, output: -1, name: "QEMU" });
  await stage.reactor.run(() => link.primary.counters.committed === 1, never);
  link.detach();
  const target: Address = { kind: "unix", path: stage.path, text: "the socket" };
  let asked = 0;
  const parting = {
    qmp: { isOpen: false, run: () => Promise.reject(new TransportError("/qmp", "read", "gone")) },
    reactor: stage.reactor,
    folder: "/nonexistent",
    watch: { shutdown: undefined, standsStill: undefined },
    still: { isHeld: false, hasBegun: false, giveUp: () => Promise.resolve() },
    taps: { passThrough: () => {} },
    guardian: { decide: () => {} },
    onSecondaryLoss: "continue",
    ask: () => {
      asked++;
      return askSecondary(target, guardOf(target), OPTIONS, stage.reactor);
    },
    signal: never,
  } as unknown as Parting;
  /** Reads nothing any more, like a process that stands still. */
  const stop = () => watches.forEach((watch) => watch.want(false, false));
  const standStill = () => void (bootTimeMs += HICCUP_MS);
  return { stage, link, input, parting, asked: () => asked, stop, standStill };
}

function guardOf(target: Address): LinkGuard {
  return LinkGuard.open({ kind: "plain", crossesNetworks: false }, "sender", target);
}

const BLIP = new TransportError("the socket", "heartbeat", "nothing was heard", { party: "peer" });

for (const stoodStill of [false, true]) {
  for (
    const [what, error] of [["is too slow", tooSlow("it", "vda", 2 ** 29)], [
      "was not heard",
      BLIP,
    ]] as const
  ) {
    const after = stoodStill ? "after a hiccup of the primary's" : "without any hiccup";
    Deno.test(`a secondary that ${what}, and is there, starts nothing when it is left ${after}`, async () => {
      const { stage, link, input, parting, asked, standStill } = await protectedPair();
      await using _ = stage;
      if (stoodStill) {
        standStill();
        // All is well again.
        const { committed } = stage.receiver.replica;
        await stage.reactor.sleep(300, never);
        assert.deepEqual([stage.receiver.state, committed], ["receiving", 1]);
      }
      assert.equal(link.stoodStill, stoodStill);
      let parted: Parted | undefined;
      partFromSecondary(error, link, parting).then((done) => {
        parted = done;
        stage.reactor.wake();
      });
      await stage.reactor.run(
        () => parted !== undefined || stage.receiver.state === "activating",
        never,
      );
      assert.equal(stage.receiver.state, "waiting");
      await stage.reactor.run(() => parted !== undefined, never);
      assert.deepEqual([parted!.fate, parted!.heard, asked()], ["goes-on", true, 0]);
      libc().close(input);
    });
  }
}

Deno.test("a primary that was given up unawares learns it from its own LEAVE, and stops if nobody answers", async () => {
  const { stage, link, input, parting, stop } = await protectedPair({ graceMs: 300, isMute: true });
  await using _ = stage;
  stop();
  await stage.reactor.run(() => stage.receiver.state === "activating", never);
  // Its listener is gone, as that of a `kemari recv … | qemu` is.
  const ask = () => Promise.resolve("unheard" as const);
  const { fate, error } = await partFromSecondary(BLIP, link, { ...parting, ask });
  assert.equal(fate, "stops");
  assert.match((error as Error).message, /has given this primary up/);
  libc().close(input);
});

Deno.test("a secondary that is asked is heard, whatever else fails meanwhile", async () => {
  await using stage = await Stage.open();
  const target: Address = { kind: "unix", path: stage.path, text: "the socket" };
  const gone = new TransportError("tap0", "read", "the interface is gone", { party: "net" });
  stage.reactor.fail(gone);
  const cancel = stage.reactor.every(1, () => {
    throw gone;
  });
  assert.equal(await askSecondary(target, guardOf(target), OPTIONS, stage.reactor), "heard");
  cancel();
  await stage.quiet();
});
