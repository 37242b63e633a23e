import assert from "node:assert/strict";
import { FORMAT_HEAD_BYTES, FORMAT_TAIL_BYTES, probeImageFormat } from "./image_format.ts";

const bytesOf = (characters: string) => Uint8Array.from(characters, (each) => each.charCodeAt(0));

/** A head or tail that has a mark somewhere. */
function with_(lengthBytes: number, at: number, mark: string): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  bytes.set(bytesOf(mark), at);
  return bytes;
}

const head = (mark: string, at = 0) => with_(FORMAT_HEAD_BYTES, at, mark);
const tail = (mark: string) => with_(FORMAT_TAIL_BYTES, 0, mark);
const NONE = new Uint8Array(0);

const CASES: [name: string, head: Uint8Array, tail: Uint8Array, format: string][] = [
  ["qcow2 v2", head("QFI\xfb\0\0\0\x02"), NONE, "qcow2"],
  ["qcow2 v3", head("QFI\xfb\0\0\0\x03"), NONE, "qcow2"],
  ["qcow", head("QFI\xfb\0\0\0\x01"), NONE, "qcow"],
  ["qed", head("QED\0"), NONE, "qed"],
  ["vmdk, sparse", head("KDMV"), NONE, "vmdk"],
  ["vmdk, ESX", head("COWD"), NONE, "vmdk"],
  ["vmdk, a descriptor", head("# Disk DescriptorFile\n"), NONE, "vmdk"],
  ["vdi", head("\x7f\x10\xda\xbe", 0x40), NONE, "vdi"],
  ["vhdx", head("vhdxfile"), NONE, "vhdx"],
  ["vpc, dynamic", head("conectix"), NONE, "vpc"],
  ["vpc, fixed", head(""), tail("conectix"), "vpc"],
  ["dmg", head(""), tail("koly\0\0\0\x04"), "dmg"],
  ["luks", head("LUKS\xba\xbe\0\x01"), NONE, "luks"],
  ["parallels", head("WithoutFreeSpace"), NONE, "parallels"],
  ["parallels, extended", head("WithouFreSpacExt"), NONE, "parallels"],
  ["xz", head("\xfd7zXZ\0"), NONE, "xz"],
  ["zstd", head("\x28\xb5\x2f\xfd"), NONE, "zstd"],
  ["gzip", head("\x1f\x8b\x08"), NONE, "gzip"],
  ["zeros", head(""), tail(""), "raw"],
  ["nothing at all", NONE, NONE, "raw"],
  ["a partition table", head("\x55\xaa", 510), tail("EFI PART"), "raw"],
  ["a mark in another place", head("QFI\xfb\0\0\0\x02", 1), NONE, "raw"],
  ["a mark of the tail in the head's middle", head("conectix", 512), NONE, "raw"],
];

for (const [name, start, end, format] of CASES) {
  Deno.test(`an image's format is recognized: ${name}`, () => {
    assert.equal(probeImageFormat(start, end), format);
  });
}

Deno.test("an image that ends inside a mark is raw, at every length", () => {
  const whole = bytesOf("# Disk DescriptorFile");
  for (let length = 0; length < whole.length; length++) {
    assert.equal(probeImageFormat(whole.subarray(0, length), NONE), "raw", `${length}`);
  }
});
