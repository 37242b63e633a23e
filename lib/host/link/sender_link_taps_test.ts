import assert from "node:assert/strict";
import type { Primary } from "../../replica/primary/primary.ts";
import { SenderLinkTaps } from "./sender_link_taps.ts";
import type { Reactor } from "../system/reactor.ts";
import type { PrimaryTapDevices } from "../taps/primary_tap_devices.ts";

/** Transactions that the secondary is told to be released, of four that are. */
function told(isEmpty: boolean): number[] {
  const released: number[] = [];
  const set = { isEmpty, onReleased: (_: number) => {} } as unknown as PrimaryTapDevices;
  const primary = { released: (transaction: number) => void released.push(transaction) };
  const link = { pump: () => {}, isClosed: () => false };
  new SenderLinkTaps(set, primary as unknown as Primary, "peer", {} as Reactor, link);
  for (const transaction of [7, 8, 9, 10]) set.onReleased(transaction);
  return released;
}

Deno.test("without taps the secondary is told once, for what an earlier session has left", () => {
  assert.deepEqual(told(true), [7]);
});

Deno.test("with taps the secondary is told of every transaction whose output is out", () => {
  assert.deepEqual(told(false), [7, 8, 9, 10]);
});
