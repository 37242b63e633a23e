/** The register in a real etcd of three members. */
import assert from "node:assert/strict";
import { aloneAfter, protectedAfter, type Register } from "../../arbiter/register.ts";
import { EtcdCluster } from "../../lab/arbiter/etcd_cluster.ts";
import { until } from "../../lab/program/until.ts";
import { EtcdStore } from "./etcd_store.ts";

const a = { name: "a", instance: "000000000000000a" };
const b = { name: "b", instance: "000000000000000b" };
const NEVER = new AbortController().signal;
const FIRST = { state: "alone", vm: "vm", generation: 1, side: a } as const;
const PAIR = protectedAfter(FIRST, b);

Deno.test("both sides swap from one register, and one wins; behind a leader's death, too", async () => {
  await using cluster = await EtcdCluster.start();
  const open = (urls: readonly string[]) =>
    new EtcdStore({ name: "etcd:test", urls, key: "kemari/vm" });
  const mine = open(cluster.urls);
  const theirs = open(cluster.urls.toReversed());
  try {
    assert.deepEqual(await mine.ask({ do: "read" }, NEVER), { is: "current", register: undefined });
    assert.deepEqual(await mine.ask({ do: "swap", from: undefined, to: FIRST }, NEVER), {
      is: "won",
    });
    const swap = { do: "swap", from: FIRST, to: PAIR } as const;
    assert.deepEqual(await mine.ask(swap, NEVER), { is: "won" });
    assert.deepEqual(await mine.ask(swap, NEVER), { is: "won" }, "asked again");

    // The race that decides who has the VM, again and again.
    let pair = PAIR;
    for (let round = 0; round < 20; round++) {
      const answers = await Promise.all([
        mine.ask({ do: "swap", from: pair, to: aloneAfter(pair, a) }, NEVER),
        theirs.ask({ do: "swap", from: pair, to: aloneAfter(pair, b) }, NEVER),
      ]);
      const won = answers.findIndex((answer) => answer.is === "won");
      const alone = aloneAfter(pair, won === 0 ? a : b);
      assert.deepEqual(answers[1 - won], { is: "current", register: alone });
      pair = protectedAfter(alone, won === 0 ? b : a);
      assert.deepEqual(await mine.ask({ do: "swap", from: alone, to: pair }, NEVER), { is: "won" });
    }

    const leader = (await cluster.leader())!;
    await cluster.kill(leader);
    const claim = { do: "swap", from: pair, to: aloneAfter(pair, b) } as const;
    await until(
      async () => (await theirs.ask(claim, NEVER)).is === "won",
      "a swap behind a leader's death",
    );
    const loser = await mine.ask({ do: "swap", from: pair, to: aloneAfter(pair, a) }, NEVER);
    assert.deepEqual(loser, { is: "current", register: claim.to });

    // Without a majority nobody is answered; with it again, what was there is there.
    const second = (leader + 1) % 3;
    await cluster.kill(second);
    const register: Register = claim.to;
    assert.equal((await mine.ask({ do: "read" }, NEVER)).is, "unknown");
    cluster.startMember(leader);
    await until(async () => {
      const answer = await mine.ask({ do: "read" }, NEVER);
      if (answer.is === "current") assert.deepEqual(answer.register, register);
      return answer.is === "current";
    }, "the register, once a majority is back");
  } finally {
    mine.close();
    theirs.close();
  }
});

Deno.test("a store without room does not answer, and what was there can be read", async () => {
  await using cluster = await EtcdCluster.start({
    members: 1,
    args: ["--quota-backend-bytes=32768"],
  });
  const store = new EtcdStore({ name: "etcd:test", urls: cluster.urls, key: "kemari/vm" });
  try {
    assert.deepEqual(await store.ask({ do: "swap", from: undefined, to: FIRST }, NEVER), {
      is: "won",
    });
    await until(async () => {
      const response = await fetch(`${cluster.urls[0]}/v3/kv/put`, {
        method: "POST",
        body: JSON.stringify({ key: "eA==", value: new Uint8Array(8192).toBase64() }),
      });
      await response.body?.cancel();
      return !response.ok;
    }, "etcd is full");
    const answer = await store.ask({ do: "swap", from: FIRST, to: PAIR }, NEVER);
    assert.ok(answer.is === "unknown");
    assert.match(answer.why, /space exceeded/);
    assert.deepEqual(await store.ask({ do: "read" }, NEVER), { is: "current", register: FIRST });
  } finally {
    store.close();
  }
});
