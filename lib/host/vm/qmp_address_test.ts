import assert from "node:assert/strict";
import { UsageError } from "../../errors.ts";
import { parseControlPath } from "../system/control_path.ts";
import { parseQmpAddress } from "./qmp_address.ts";

Deno.test("a monitor's address is read as QEMU was given it", () => {
  const cases: [string, Record<string, unknown>][] = [
    ["/run/vm.qmp", { kind: "unix", path: "/run/vm.qmp" }],
    ["vm.qmp", { kind: "unix", path: "vm.qmp" }],
    ["unix:/run/vm.qmp", { kind: "unix", path: "/run/vm.qmp" }],
    ["unix:/run/vm.qmp,server=on,wait=off", { kind: "unix", path: "/run/vm.qmp" }],
    ["unix:/run/vm.qmp,server,nowait", { kind: "unix", path: "/run/vm.qmp" }],
    ["/run/a:4444/vm.qmp", { kind: "unix", path: "/run/a:4444/vm.qmp" }],
    ["/run/vm:4444", { kind: "unix", path: "/run/vm:4444" }],
    ["unix:vm:4444", { kind: "unix", path: "vm:4444" }],
    ["localhost:4444", { kind: "tcp", host: "localhost", port: 4444 }],
    ["tcp:localhost:4444,server=on", { kind: "tcp", host: "localhost", port: 4444 }],
    ["tcp::4444", { kind: "tcp", host: "0.0.0.0", port: 4444 }],
    ["[::1]:4444", { kind: "tcp", host: "::1", port: 4444 }],
    ["tcp:[fe80::1%eth0]:4444", { kind: "tcp", host: "fe80::1%eth0", port: 4444 }],
  ];
  for (const [text, expected] of cases) {
    const { text: _, ...address } = parseQmpAddress(text);
    assert.deepEqual(address, expected, text);
  }
});

Deno.test("what is no monitor's address is refused, with the forms there are", () => {
  const wrong = ["exec:ssh host", "stdio:", "-", "fd:3", "tcp:/run/x", "tcp:host", "host:99999"];
  for (const text of [...wrong, "::1:4444", "unix:", "", "[::1%]:4444", `/${"x".repeat(107)}`]) {
    assert.throws(() => parseQmpAddress(text), (error) => {
      assert.ok(error instanceof UsageError, text);
      return /unix:PATH/.test(error.hint!) && (!wrong.includes(text) || !/exec:/.test(error.hint!));
    }, text);
  }
});

Deno.test("a control socket is a path, with unix: in front or not", () => {
  const cases = [
    ["/run/kemari.ctl", "/run/kemari.ctl"],
    ["unix:/run/kemari.ctl", "/run/kemari.ctl"],
    ["kemari.ctl", "kemari.ctl"],
    ["unix:vm:1", "vm:1"],
    ["/run/vm:1", "/run/vm:1"],
    ["./vm:1", "./vm:1"],
  ];
  for (const [text, path] of cases) assert.equal(parseControlPath(text), path, text);
  const wrong = ["host:4000", "tcp:host:4000", "tcp:/x", "exec:ssh h", "stdio:", "-", "[::1]:4"];
  for (const text of [...wrong, "unix:", "", `/${"x".repeat(107)}`]) {
    assert.throws(() => parseControlPath(text), (error) => {
      assert.ok(error instanceof UsageError, text);
      return !wrong.includes(text) || /PATH or unix:PATH/.test(error.hint!);
    }, text);
  }
});
