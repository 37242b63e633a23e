/** The routes that acknowledge at once, in real namespaces. */
import assert from "node:assert/strict";
import { CABLE_IP, NetLab, netLabMissing } from "./net_lab.ts";
import { QuickLoopback, setQuickAcks } from "./quick_acks.ts";

const missing = await netLabMissing();
if (missing !== undefined) console.error(`SKIP quick acknowledgements: ${missing}`);

async function routeTo(address: string, prefix: readonly string[]): Promise<string> {
  const [program, ...args] = [...prefix, "ip", "route", "get", address];
  const { stdout } = await new Deno.Command(program, { args }).output();
  return new TextDecoder().decode(stdout);
}

Deno.test({
  name: "e2e: a loopback of our own acknowledges at once, and is gone with its owner",
  ignore: missing !== undefined,
  fn: async () => {
    const loopback = await QuickLoopback.make();
    assert.ok(loopback instanceof QuickLoopback);
    {
      await using _ = loopback;
      assert.match(await routeTo("127.0.0.1", loopback.prefix), /quickack 1/);
      assert.doesNotMatch(await routeTo("127.0.0.1", []), /quickack/);
    }
    assert.equal(await routeTo("127.0.0.1", loopback.prefix), "");
  },
});

Deno.test({
  name: "e2e: the cable between two hosts acknowledges at once, or as it comes",
  ignore: missing !== undefined,
  fn: async () => {
    await using lab = await NetLab.make({ hosts: {} });
    const routes = () =>
      Promise.all([
        routeTo(CABLE_IP.secondary, lab.prefix("primary")),
        routeTo(CABLE_IP.primary, lab.prefix("secondary")),
      ]);
    await setQuickAcks(lab, true);
    for (const route of await routes()) assert.match(route, /dev sync0 .*quickack 1/s);
    await setQuickAcks(lab, false);
    for (const route of await routes()) assert.doesNotMatch(route, /quickack/);
  },
});
