import assert from "node:assert/strict";
import { chooseSecurity, type SecurityOptions } from "../../decisions/link_security.ts";
import { UsageError } from "../../errors.ts";
import { DEFAULT_SSH, type SshOptions } from "../system/ssh_address.ts";
import { parseTarget } from "./parse_target.ts";

const CASES: [
  target: string,
  security: SecurityOptions,
  ssh: Partial<SshOptions>,
  wanted: string | RegExp,
][] = [
  ["far:4000", { key: "k" }, {}, "tcp"],
  ["unix:/run/k", {}, {}, "unix"],
  ["exec:true", {}, {}, "exec"],
  ["ssh:far", {}, {}, "ssh"],
  ["ssh:far", {}, { overSsh: true, ssh: "ssh -v", remoteKemari: "k", startRecv: "…" }, "ssh"],
  ["stdio:", {}, {}, /stdio: cannot be a target/],
  ["ssh:far", { key: "k" }, {}, /makes a key for each session/],
  ["ssh:far", { tlsDir: "d" }, {}, /makes a key for each session/],
  ["ssh:far", { plain: true }, { overSsh: true }, /makes a key for each session/],
  ["far:4000", {}, { overSsh: true }, /--over-ssh: this target is not reached by ssh/],
  ["unix:/run/k", {}, { ssh: "dropbear" }, /--ssh: this target/],
  ["exec:true", {}, { startRecv: "x", remoteKemari: "k" }, /--recv, --remote-kemari: this target/],
  ["far", {}, {}, /is not an address/],
];

for (const [target, told, ssh, wanted] of CASES) {
  Deno.test(`${target} as a target, with ${JSON.stringify({ ...told, ...ssh })}`, () => {
    const settings = { target, security: chooseSecurity(told), ssh: { ...DEFAULT_SSH, ...ssh } };
    if (typeof wanted === "string") {
      const address = parseTarget(settings);
      assert.equal(address.kind, wanted);
      if (address.kind === "ssh") assert.deepEqual(address.options, settings.ssh);
      return;
    }
    assert.throws(() => parseTarget(settings), (error) => {
      return error instanceof UsageError && wanted.test(error.message) && error.hint !== undefined;
    });
  });
}
