import assert from "node:assert/strict";
import { decodeNetwork, judgeOutside, type OutsideReplies, sayOutside } from "./outside_output.ts";

/** As 7.2, 10.0 and 11.1 write it (recorded). */
const NETWORK = [
  "hub 0",
  " \\ hp2: u1: index=0,type=user,net=10.0.2.0,restrict=off",
  " \\ hp: rtl8139.0: index=0,type=nic,model=rtl8139,macaddr=52:54:00:12:34:59",
  "web: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:00:00:01",
  " \\ t0: index=0,type=tap,ifname=tap1,script=no,downscript=no",
  "alone: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:5a",
  "net0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:5b",
  " \\ k0: index=0,type=stream,unix:/run/vm.net",
  "filters:",
  "  - fd0: type=filter-dump,file=/tmp/dump,maxlen=65536,position=tail,netdev=k0,queue=all",
  "virtio-net-pci.5: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:5c",
  " \\ k1: index=0,type=stream,connecting",
  "",
].join("\r\n");

const NOTHING = { nets: [], connected: 0, disks: [] };
const NET0 = { nets: ["/run/vm.net"], connected: 1, disks: [] };

function nic(type: string, info: string, name = "n"): string {
  return `${name}: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56\n` +
    ` \\ b: index=0,type=${type},${info}\n`;
}

Deno.test("decodeNetwork tells NICs, and what is at the other end of their cables and hubs", () => {
  const found = decodeNetwork(NETWORK).map((
    { name, backends },
  ) => [name, backends.map(({ type, info }) => `${type} ${info}`).join()]);
  assert.deepEqual(found, [
    ["rtl8139.0", "user net=10.0.2.0,restrict=off"],
    ["web", "tap ifname=tap1,script=no,downscript=no"],
    ["alone", ""],
    ["net0", "stream unix:/run/vm.net"],
    ["virtio-net-pci.5", "stream connecting"],
  ]);
});

Deno.test("decodeNetwork takes any text", () => {
  for (
    const text of ["", "unknown command: 'info network'", " \\ x", "a: index=0,type=nic,", "\n\n"]
  ) {
    assert.ok(decodeNetwork(text).every(({ backends }) => backends.length === 0));
  }
});

Deno.test("judgeOutside names the NICs that do not go through kemari", async (t) => {
  const cases: [string, string, { nets: string[]; connected: number }, string[]][] = [
    ["by their back ends", NETWORK, NET0, ["rtl8139.0", "web"]],
    ["one that goes", nic("stream", "unix:/run/vm.net"), NET0, []],
    ["a tap", nic("tap", "ifname=tap0"), NET0, ["n"]],
    ["slirp", nic("user", "net=10.0.2.0"), NET0, ["n"]],
    ["vhost-user", nic("vhost-user", "vhost-user0 to c0"), NET0, ["n"]],
    ["another stream", nic("stream", "tcp:10.0.0.1:5"), { ...NET0, connected: 0 }, ["n"]],
    ["multicast", nic("socket", "socket: mcast=230.0.0.1:1"), NET0, ["n"]],
    ["datagrams", nic("dgram", "udp=/a:/b"), NET0, ["n"]],
    ["our socket, seen from another mount namespace", nic("stream", "unix:/net"), NET0, []],
    ["our socket, handed over", nic("stream", "unix:"), NET0, []],
    ["our socket, behind a forwarder", nic("socket", "socket: connect to 127.0.0.1:5"), NET0, []],
    [
      "two that may be ours where one is",
      nic("stream", "unix:", "n1") + nic("stream", "unix:/x", "n2"),
      NET0,
      ["n1", "n2"],
    ],
    [
      "one that is ours, beside one that may not be",
      nic("stream", "unix:/run/vm.net", "n1") + nic("stream", "unix:/x", "n2"),
      NET0,
      ["n2"],
    ],
    ["one that is not connected", nic("stream", "listening"), { ...NET0, connected: 0 }, []],
    ["a NIC without a cable", "a: index=0,type=nic,model=m,macaddr=5\n", NET0, []],
  ];
  for (const [name, network, held, expected] of cases) {
    await t.step(name, () => {
      const { nics, unheld } = judgeOutside({ network }, { disks: [], ...held });
      assert.deepEqual(nics.map(({ name }) => name), expected);
      assert.equal(unheld, null);
    });
  }
});

Deno.test("without any --net one sentence tells it, and none where the VM has no NIC", () => {
  const chardevs = [{ label: "serial0", filename: "pty:/dev/pts/0" }];
  const found = judgeOutside({ network: NETWORK, chardevs }, NOTHING);
  assert.deepEqual(found.nics.map(({ name }) => name), ["rtl8139.0", "web", "net0"]);
  assert.match(found.unheld!, /^No NIC of this VM goes through kemari/);
  assert.deepEqual(sayOutside(found), [found.unheld]);
  assert.deepEqual(sayOutside(judgeOutside({ network: "" }, NOTHING)), []);
  assert.deepEqual(sayOutside(judgeOutside({}, NOTHING)), []);
});

Deno.test("a doctor, who knows no tap, takes for kemari's what could be", () => {
  const only = judgeOutside({ network: nic("tap", "ifname=tap0") });
  assert.match(only.unheld!, /No NIC of this VM goes through/);
  const mixed = judgeOutside({ network: NETWORK });
  assert.equal(mixed.unheld, null);
  assert.deepEqual(mixed.nics.map(({ name }) => name), ["rtl8139.0", "web", "alone"].slice(0, 2));
  assert.deepEqual(judgeOutside({ network: nic("stream", "unix:/x") }).nics, []);
});

Deno.test("a NIC is said by QEMU's id, model, address and back end", () => {
  const [sentence] = sayOutside(judgeOutside({ network: NETWORK }, NET0)).slice(1);
  assert.match(
    sentence,
    /^NIC web \(virtio-net-pci, 52:54:00:00:00:01, tap t0, ifname=tap1\) does not go through kemari/,
  );
});

Deno.test("who may listen to a character device is named, a monitor and a file are not", () => {
  // As 5.2 and 11.1 tell them (recorded).
  const chardevs = [
    { label: "dbg", filename: "file" },
    { label: "ser", filename: "disconnected:unix:/run/ser.sock,server" },
    { label: "nul", filename: "null" },
    { label: "charmonitor", filename: "unix:/run/mon,server=on" },
    { label: "compat_monitor0", filename: "unix:/run/q.sock,server=on" },
    { label: "mine", filename: "unix:/run/vm.qmp,server=on" },
    { label: "serial0", filename: "pty:/dev/pts/0" },
    { label: "charchannel0", filename: "unix:/run/qga,server=on" },
    { label: "tel", filename: "telnet:127.0.0.1:4444,server=on" },
    { label: 5 },
    null,
  ];
  const { others } = judgeOutside({ chardevs }, { ...NET0, monitor: "/run/vm.qmp" });
  assert.deepEqual(others, [
    "ser (unix:/run/ser.sock)",
    "serial0 (pty:/dev/pts/0)",
    "charchannel0 (unix:/run/qga)",
    "tel (telnet:127.0.0.1:4444)",
  ]);
});

Deno.test("devices that reach past QEMU by themselves are named once", () => {
  const devices = [
    '      dev: vhost-user-fs-pci, id "share"',
    '          dev: vhost-user-fs-device, id ""',
    '      dev: virtio-net-pci, id "net0"',
    '      dev: usb-host, id ""',
    '      dev: vhost-vsock-pci, id "vs"',
  ].join("\n");
  const { others } = judgeOutside({ devices }, NET0);
  assert.deepEqual(others, ["share (vhost-user-fs-pci)", "usb-host", "vs (vhost-vsock-pci)"]);
  assert.match(
    sayOutside(judgeOutside({ devices }, NET0))[0],
    /share \(vhost-user-fs-pci\), usb-host/,
  );
});

Deno.test("a drive of another NBD server than kemari is named", () => {
  const drive = (device: string, file: string, ro = false) => ({ device, inserted: { ro, file } });
  const block: OutsideReplies["block"] = [
    drive("ours", "nbd+unix://?socket=/run/vm.nbd"),
    drive("escaped", "nbd+unix:///disk0?socket=%2Frun%2Fvm.nbd"),
    drive("other", "nbd+unix:///x?socket=/run/other.nbd"),
    drive("read-only", "nbd+unix:///x?socket=/run/other.nbd", true),
    drive("local", "/var/lib/vm.img"),
    { device: "empty" },
  ];
  const held = { ...NET0, disks: ["/run/vm.nbd"] };
  assert.deepEqual(judgeOutside({ block }, held).drives, ["other"]);
  assert.match(sayOutside(judgeOutside({ block }, held))[0], /another NBD server.*: other\./);
  // Where kemari serves no disk, none is expected to be its own.
  assert.deepEqual(judgeOutside({ block }, NET0).drives, []);
});
