import assert from "node:assert/strict";
import { type HeldInputs, InputHold } from "./input_hold.ts";
import { Reactor } from "../system/reactor.ts";
import { never } from "../system/never.ts";

/** NICs, each of which has taken what it was given at the look of that number. */
async function withNets(
  takenAt: readonly number[],
  act: (hold: InputHold, told: string[], reactor: Reactor) => Promise<void> | void,
): Promise<void> {
  const reactor = new Reactor();
  const told: string[] = [];
  const nets = takenAt.map((count, i): HeldInputs => {
    let looks = 0;
    return {
      holdInputs: () => void told.push(`hold ${i}`),
      areInputsTaken: () => ++looks >= count,
      giveUpOnInputs: () => void told.push(`give up ${i}`),
      giveInputs: () => void told.push(`give ${i}`),
    };
  });
  try {
    await act(new InputHold(reactor, nets, () => told.push("taken")), told, reactor);
  } finally {
    reactor.close();
  }
}

Deno.test("nobody waits where QEMU has taken everything", () =>
  withNets([1, 1], (hold, told) => {
    assert.equal(hold.hold(), true);
    hold.give();
    hold.give();
    assert.deepEqual(told, ["hold 0", "hold 1", "give 0", "give 1"]);
  }));

Deno.test("all NICs are waited for", () =>
  withNets([2, 5], async (hold, told, reactor) => {
    assert.equal(hold.hold(), false);
    await reactor.run(() => told.includes("taken"), never);
    assert.deepEqual(told, ["hold 0", "hold 1", "taken"]);
  }));

Deno.test("a QEMU that takes nothing is not waited for without end", () =>
  withNets([1, Infinity], async (hold, told, reactor) => {
    assert.equal(hold.hold(), false);
    await reactor.run(() => told.includes("taken"), never);
    assert.deepEqual(told, ["hold 0", "hold 1", "give up 0", "give up 1", "taken"]);
  }));

Deno.test("whoever gives has nothing to wait for", () =>
  withNets([Infinity], async (hold, told, reactor) => {
    assert.equal(hold.hold(), false);
    hold.give();
    await reactor.sleep(100, never);
    assert.deepEqual(told, ["hold 0", "give 0"]);
  }));
