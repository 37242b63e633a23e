import assert from "node:assert/strict";
import fc from "fast-check";
import { QemuError, UsageError } from "../../errors.ts";
import {
  checkStandbyCommand,
  coldCommand,
  compareBlocks,
  parseBlockAddresses,
  parseRamBlocks,
  planStandby,
  quoteWord,
} from "./standby_command.ts";

const FILES = ["pc.ram", "pc.bios", "near", "far"].map((name, i) => {
  return { name, path: `/dev/shm/k/1/${name}`, lengthBytes: (i + 1) * 4096 };
});
const MAIN = FILES.slice(0, 2);
const LAUNCH = { share: true, qmpPath: "/run/q" };

/** The words that a shell makes of a command line. */
async function wordsOf(command: string): Promise<string[]> {
  const { stdout } = await new Deno.Command("/bin/sh", {
    args: ["-c", `printf '%s\\0' ${command}`],
  }).output();
  return new TextDecoder().decode(stdout).split("\0").slice(0, -1);
}

Deno.test("ordinary RAM gets a back end of its block's name", async () => {
  const { command, shared } = planStandby("qemu -m 16 -name 'a b'", MAIN, LAUNCH);
  assert.deepEqual(shared.map(({ name }) => name), ["pc.ram"]);
  assert.deepEqual(await wordsOf(command), [
    "qemu",
    ...["-m", "16", "-name", "a b", "-object"],
    "memory-backend-file,id=pc.ram,size=4096,mem-path=/dev/shm/k/1/pc.ram,share=on",
    ...["-machine", "memory-backend=pc.ram", "-S", "-incoming", "defer"],
    ...["-qmp", "unix:/run/q,server=on,wait=off"],
  ]);
});

Deno.test("back ends of a command become files of the same id, however they are written", async () => {
  const near = "memory-backend-ram,id=near,size=12K";
  const far = "memory-backend-memfd,size=16K,id=far,prealloc=on,policy=bind,host-nodes=0";
  for (
    const line of [
      `q -object ${near} -numa node,memdev=near -object ${far} -numa node,memdev=far`,
      `q --object=${near} -numa node,memdev=near '-object' '${far}' -numa node,memdev=far`,
      `q -object "${near}" -numa node,memdev=near -object '${far}' -numa node,memdev=far`,
    ]
  ) {
    const { command, shared } = planStandby(line, FILES, { ...LAUNCH, share: false });
    assert.deepEqual(shared.map(({ name }) => name), ["near", "far"]);
    const words = (await wordsOf(command)).filter((word) => /^memory/.test(word));
    assert.deepEqual(words, [
      "memory-backend-file,id=near,size=12288,mem-path=/dev/shm/k/1/near,share=off",
      "memory-backend-file,id=far,size=16384,mem-path=/dev/shm/k/1/far,share=off,policy=bind,host-nodes=0",
    ]);
    assert.ok(!command.includes("-machine memory-backend"));
  }
});

Deno.test("a path keeps its commas, quotes and blanks", async () => {
  const path = "/dev/shm/a b,c'd/1/pc.ram";
  const { command } = planStandby("q", [{ ...FILES[0], path }], LAUNCH);
  const word = (await wordsOf(command)).find((each) => each.startsWith("memory-backend-file"))!;
  assert.match(word, /mem-path=\/dev\/shm\/a b,,c'd\/1\/pc\.ram,share=on$/);
});

Deno.test("any word survives a shell", async () => {
  const words = fc.array(fc.string({ maxLength: 8 }).filter((w) => !w.includes("\0")), {
    minLength: 1,
    maxLength: 6,
  });
  await fc.assert(
    fc.asyncProperty(words, async (list) => {
      assert.deepEqual(await wordsOf(list.map(quoteWord).join(" ")), list);
    }),
    { numRuns: 25, seed: 3 },
  );
});

Deno.test("a back end that is no block of the primary's, and RAM that is nowhere, are refused", () => {
  const refused = (line: string, files: typeof FILES, reason: RegExp) => {
    assert.throws(() => planStandby(line, files, LAUNCH), (error) => {
      assert.ok(error instanceof QemuError);
      assert.match(error.message, reason);
      return true;
    });
  };
  refused("q -object memory-backend-ram,id=mem,size=1M", FILES, /back end mem is not among the/);
  refused("q -object memory-backend-ram,size=1M", FILES, /back end without an id/);
  refused("q -m 16", FILES.slice(1), /no RAM back end, and the primary's RAM is in pc.bios, near/);
});

Deno.test("commands that cannot become a standby are refused", () => {
  for (
    const command of [
      "qemu -incoming fd:0",
      "qemu --incoming=defer",
      "qemu '-incoming' x",
      `qemu -object '{"qom-type":"memory-backend-ram"}'`,
    ]
  ) assert.throws(() => checkStandbyCommand(command), UsageError, command);
  checkStandbyCommand("qemu -object rng-random,id=r -device virtio-rng-pci,rng=r -name incoming");
  assert.match(coldCommand("qemu -m 1", "/q"), /^qemu -m 1 -incoming fd:0 -qmp unix:\/q,/);
});

const RAMBLOCK =
  `              Block Name    PSize              Offset               Used              Total
                  pc.ram    4 KiB  0x0000000000000000 0x0000000004000000 0x0000000004000000
    /rom@etc/acpi/tables    4 KiB  0x0000000005100000 0x0000000000020000 0x0000000000200000
                 pc.bios    4 KiB  0x0000000004000000 0x0000000000040000 0x0000000000040000  0x00007fc8d8200000  ro
`;

Deno.test("blocks must be the primary's; those of firmware tables may grow", () => {
  const standby = parseRamBlocks(RAMBLOCK);
  assert.deepEqual(standby[1], {
    name: "/rom@etc/acpi/tables",
    usedBytes: 0x20000,
    totalBytes: 0x200000,
  });
  const primary = standby.map(({ name, usedBytes }) => ({ name, lengthBytes: usedBytes }));
  compareBlocks(primary, standby);
  const changed = (at: number, lengthBytes: number) =>
    primary.map((block, i) => i === at ? { ...block, lengthBytes } : block);
  compareBlocks(changed(1, 0x40000), standby);
  assert.throws(
    () => compareBlocks(changed(1, 0x400000), standby),
    /has 4194304 bytes at the primary/,
  );
  assert.throws(() => compareBlocks(changed(0, 0x8000000), standby), /pc.ram has 134217728 bytes/);
  assert.throws(() => compareBlocks(primary.slice(1), standby), /RAM pc.ram, which the primary/);
  const more = [...primary, { name: "0000:00:03.0/vga.vram", lengthBytes: 4096 }];
  assert.throws(() => compareBlocks(more, standby), /vga.vram, which belongs to a device/);
});

Deno.test("where RAM blocks lie is read from the memory tree", () => {
  const tree = `memory-region: system
  0000000000000000-ffffffffffffffff (prio 0, i/o): system
    0000000000000000-000000000bffffff (prio 0, ram): alias ram-below-4g @pc.ram 0-bffffff

memory-region: pc.ram
  0000000000000000-000000000bffffff (prio 0, container): pc.ram
    0000000000000000-0000000007ffffff (prio 0, ram): near
    0000000008000000-000000000bffffff (prio 0, ram): /objects/far
`;
  assert.deepEqual([...parseBlockAddresses(tree)], [["near", 0], ["far", 0x8000000]]);
  const asQmpHasIt = tree.replaceAll("\n", "\r\n");
  assert.deepEqual([...parseBlockAddresses(asQmpHasIt)], [["near", 0], ["far", 0x8000000]]);
});
