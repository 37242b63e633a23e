import assert from "node:assert/strict";
import { QemuError } from "../../errors.ts";
import { loadOrder, moduleName, readModinfo } from "./kernel_modules.ts";

const GRAPH: Record<string, string[]> = {
  virtio: [],
  virtio_ring: ["virtio"],
  virtio_pci: ["virtio", "virtio_ring"],
  failover: [],
  net_failover: ["failover"],
  virtio_net: ["virtio", "net_failover", "virtio_ring"],
};
const dependsOf = (name: string) => GRAPH[name];

Deno.test("loadOrder puts what a module needs before it, each once", () => {
  assert.deepEqual(loadOrder(["virtio-pci", "virtio_net"], dependsOf), [
    "virtio",
    "virtio_ring",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
  ]);
});

Deno.test("loadOrder leaves out what the kernel may have built in", () => {
  assert.deepEqual(loadOrder(["ext4", "virtio"], dependsOf), ["virtio"]);
});

Deno.test("loadOrder refuses a missing dependency and a circle", () => {
  assert.throws(
    () => loadOrder(["a"], (name) => name === "a" ? ["gone"] : undefined),
    (error) => error instanceof QemuError && error.message.includes("a needs gone"),
  );
  assert.throws(
    () => loadOrder(["a"], (name) => name === "a" ? ["b"] : ["a"]),
    (error) => error instanceof QemuError && error.errorClass === "ModuleLoop",
  );
});

Deno.test("moduleName spells a file as depends= does", () => {
  assert.equal(moduleName("/lib/kernel/drivers/net/net-failover.ko"), "net_failover");
});

/** A minimal ELF64 object: a header, section names, .modinfo. */
function elfWith(sectionName: string, contents: string): Uint8Array {
  const text = new TextEncoder();
  const names = text.encode(`\0.shstrtab\0${sectionName}\0`);
  const data = text.encode(contents);
  const tableAt = 64 + names.length + data.length;
  const bytes = new Uint8Array(tableAt + 3 * 64);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x7f454c46);
  bytes[4] = 2;
  bytes.set(names, 64);
  bytes.set(data, 64 + names.length);
  view.setBigUint64(0x28, BigInt(tableAt), true);
  view.setUint16(0x3a, 64, true);
  view.setUint16(0x3c, 3, true);
  view.setUint16(0x3e, 1, true);
  const section = (index: number, name: number, offset: number, length: number) => {
    view.setUint32(tableAt + index * 64, name, true);
    view.setBigUint64(tableAt + index * 64 + 0x18, BigInt(offset), true);
    view.setBigUint64(tableAt + index * 64 + 0x20, BigInt(length), true);
  };
  section(1, 1, 64, names.length);
  section(2, 11, 64 + names.length, data.length);
  return bytes;
}

Deno.test("readModinfo reads a module's own words", () => {
  const info = readModinfo(elfWith(".modinfo", "license=GPL\0depends=virtio,virtio_ring\0"));
  assert.equal(info.get("depends"), "virtio,virtio_ring");
  assert.equal(info.get("license"), "GPL");
});

Deno.test("readModinfo refuses what is no module", () => {
  assert.throws(() => readModinfo(new Uint8Array(10)), QemuError);
  assert.throws(() => readModinfo(elfWith(".text", "x")), QemuError);
});
