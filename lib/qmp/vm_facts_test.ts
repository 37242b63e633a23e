import assert from "node:assert/strict";
import { decodeVmFacts, macQueries } from "./vm_facts.ts";

Deno.test("what QEMU tells of a VM is read, and what it does not tell is unknown", () => {
  const facts = decodeVmFacts({
    uuid: { UUID: "0123ABCD-0000-0000-0000-000000000001" },
    name: { name: "vm 1" },
    machine: "pc-q35-11.1-machine",
    memory: { "base-memory": 67108864, "plugged-memory": 0 },
    cpus: [{ "cpu-index": 0, "thread-id": 12 }, { "cpu-index": 1, "thread-id": 11 }],
    drives: [
      { device: "cd", removable: true, inserted: { file: "/iso" } },
      { device: "empty", removable: false },
      { device: "d", removable: false, inserted: { file: "/a", image: { "virtual-size": 512 } } },
    ],
  }, ["52:54:00:AB:00:01", undefined, 7]);
  assert.deepEqual(facts, {
    uuid: "0123abcd000000000000000000000001",
    name: "vm 1",
    threads: [11, 12],
    devices: [
      "drive /a 512",
      "mac 52:54:00:ab:00:01",
      "machine pc-q35-11.1-machine",
      "memory 67108864",
    ],
  });
  for (const none of [{}, { uuid: { UUID: "00000000-0000-0000-0000-000000000000" }, name: {} }]) {
    const { uuid, name } = decodeVmFacts(none, []);
    assert.deepEqual({ uuid, name }, { uuid: undefined, name: undefined });
  }
  for (const odd of [null, 7, "x", [null], { UUID: 7 }]) {
    decodeVmFacts({ uuid: odd, name: odd, cpus: odd, drives: odd, memory: odd }, [odd]);
    assert.deepEqual(macQueries({ named: odd }), []);
  }
});

Deno.test("every device is asked for its MAC address, and nothing else is", () => {
  const queries = macQueries({
    named: [{ name: "net0", type: "child<virtio-net-pci>" }, { name: "type", type: "string" }],
    anonymous: [{ name: "device[0]", type: "child<e1000>" }],
  });
  assert.deepEqual(queries.map((query) => query.arguments), [
    { path: "/machine/peripheral/net0", property: "mac" },
    { path: "/machine/peripheral-anon/device[0]", property: "mac" },
  ]);
});
