/** Link-local IPv6 addresses, which name their interface: between the two ends, and of QEMU's monitor. */
import assert from "node:assert/strict";
import { netLabMissing } from "../lab/network/net_lab.ts";
import { ensureQemu } from "../lab/provision/qemu.ts";
import { loadStream } from "../lab/recording/streams.ts";
import { startVm } from "../lab/vms/vm.ts";
import { vmStateOf } from "../lab/vms/vm_state.ts";
import { FROM_SOURCE, KemariProcess } from "../lab/program/kemari_process.ts";

const missing = await netLabMissing();
if (missing) console.error(`SKIP link-local tests: ${missing}`);

const STREAM = "plain-11.1-virtio";

async function ip(...words: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command("ip", { args: words }).output();
  assert.ok(success, `ip ${words.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

/** A namespace with a cable from `here0` (fe80::77) to `there0` (fe80::88), which is not the first interface. */
async function inNamespace(
  body: (inside: readonly string[], index: number) => Promise<void>,
): Promise<void> {
  const name = `kemari-zone-${Deno.pid}`;
  await ip("netns", "add", name);
  try {
    await ip("-n", name, "link", "set", "lo", "up");
    await ip("-n", name, "link", "add", "here0", "type", "veth", "peer", "name", "there0");
    for (const [link, address] of [["here0", "fe80::77"], ["there0", "fe80::88"]]) {
      await ip("-n", name, "link", "set", link, "up");
      await ip("-n", name, "addr", "add", `${address}/64`, "dev", link, "nodad");
    }
    const link = await ip("-n", name, "link", "show", "here0");
    await body(["ip", "netns", "exec", name], Number(/^(\d+):/.exec(link)![1]));
  } finally {
    await ip("netns", "del", name);
  }
}

Deno.test({
  name: "a link-local address is reached over the interface behind it, by its name and its number",
  ignore: missing !== undefined,
}, () =>
  inNamespace(async (inside, index) => {
    const program = [...inside, ...FROM_SOURCE];
    const path = await Deno.makeTempFile();
    try {
      const stream = loadStream(STREAM);
      await Deno.writeFile(path, stream);
      for (const zone of ["here0", String(index)]) {
        for (const listen of [`[fe80::77%${zone}]:0`, `tcp:[fe80::77%${zone}]:0`]) {
          await using recv = new KemariProcess(["recv", listen, "--plain"], { program });
          const address = await recv.listening();
          assert.match(address, /^\[fe80::77%\w+\]:[1-9]\d*$/);
          await using send = new KemariProcess(["send", address, "--plain"], {
            program,
            stdin: { path },
          });
          const [sent, received] = await Promise.all([send.ended(), recv.ended()]);
          assert.equal(sent.code, 0, sent.stderr);
          assert.deepEqual(vmStateOf(received.stdout), vmStateOf(stream));
        }
      }
    } finally {
      await Deno.remove(path);
    }
  }));

Deno.test({
  name: "an interface that is not there, or not named, is said to be that, with what to write",
  ignore: missing !== undefined,
}, () =>
  inNamespace(async (inside) => {
    const program = [...inside, ...FROM_SOURCE];
    const cases: [string[], number, RegExp][] = [
      [["recv", "[fe80::77%eth9]:4000"], 4, /no network interface "eth9"\n.*see `ip link`/],
      [["recv", "[fe80::77%999]:4000"], 4, /no network interface "999"/],
      [["send", "[fe80::77%eth9]:4000"], 4, /no network interface "eth9"/],
      [["send", "[fe80::77]:4000"], 4, /link-local: on which link.*\n.*\[fe80::77%eth0\]:4000/],
      [["recv", "[fe80::77]:4000"], 4, /link-local: on which link/],
      [["recv", "[fe80::77%]:4000"], 2, /behind % stands one network interface/],
      // It is an address of the other interface.
      [["recv", "[fe80::77%there0]:4000", "--plain"], 4, /address not available on this host/],
    ];
    for (const [words, code, message] of cases) {
      await using kemari = new KemariProcess(words, { program });
      const ended = await kemari.ended();
      assert.deepEqual([ended.code, words], [code, words], ended.stderr);
      assert.match(ended.stderr, message);
      assert.doesNotMatch(ended.stderr, /system error/);
    }
  }));

Deno.test({
  name: "e2e: QEMU's monitor at a link-local address is asked, by the runtime and by the reactor",
  ignore: missing !== undefined,
}, () =>
  inNamespace(async (inside, index) => {
    const program = [...inside, ...FROM_SOURCE];
    const { program: qemu } = await ensureQemu("11.1");
    const args = ["-qmp", "tcp::4445,ipv6=on,server=on,wait=off", "-S"];
    await using _vm = await startVm({ qemu, name: "zone", memoryMiB: 64, prefix: inside, args });
    for (const zone of ["here0", String(index)]) {
      const monitor = `tcp:[fe80::77%${zone}]:4445`;
      await using doctor = new KemariProcess(["doctor", "--qmp", monitor], { program });
      const found = await doctor.ended();
      assert.equal(found.code, 0, found.stderr);
      await using recv = new KemariProcess(["recv", "[fe80::77%here0]:0", "--plain"], { program });
      const words = ["protect", "--qmp", monitor, await recv.listening(), "--no-retry", "--plain"];
      await using protect = new KemariProcess(words, { program });
      await protect.waitFor(
        /The VM stands still \(prelaunch\)|waiting for the VM to run|connected/,
      );
      protect.signal("SIGINT");
      assert.equal((await protect.ended()).code, 130);
    }
  }));
