import assert from "node:assert/strict";
import { UsageError } from "../../errors.ts";
import { parseAddress } from "./address.ts";
import { DEFAULT_SSH, parseSshAddress } from "./ssh_address.ts";

Deno.test("a target by ssh is a host as ssh knows it, and a control socket there", () => {
  const cases: [text: string, destination: string, path: string][] = [
    ["ssh:far", "far", "/run/kemari.ctl"],
    ["ssh:root@far.example", "root@far.example", "/run/kemari.ctl"],
    ["ssh:far:/run/vm1.ctl", "far", "/run/vm1.ctl"],
    ["ssh:me@far:/srv/a b@c:d.ctl", "me@far", "/srv/a b@c:d.ctl"],
    ["ssh:me@realm@far", "me@realm@far", "/run/kemari.ctl"],
    ["ssh:192.0.2.7:/k", "192.0.2.7", "/k"],
    ["ssh:[2001:db8::2]", "2001:db8::2", "/run/kemari.ctl"],
    ["ssh:me@[fe80::1%eth0]:/k", "me@fe80::1%eth0", "/k"],
    ["ssh:far:/" + "x".repeat(106), "far", "/" + "x".repeat(106)],
  ];
  for (const [text, destination, path] of cases) {
    const wanted = { kind: "ssh", destination, path, options: DEFAULT_SSH, text };
    assert.deepEqual(parseSshAddress(text), wanted);
    assert.deepEqual(parseAddress(text), wanted);
  }
  const options = { ...DEFAULT_SSH, ssh: "ssh -p 2222", overSsh: true };
  assert.deepEqual(parseAddress("ssh:far", options), parseSshAddress("ssh:far", options));
});

Deno.test("what ssh would take for an option, or is no host, is refused", () => {
  const wrong: [string, RegExp][] = [
    ["ssh:", /no host/],
    ["ssh:@far", /no host/],
    ["ssh:far/", /no host/],
    ["ssh://far", /no host/],
    ["ssh:a b", /no host/],
    ["ssh:far\n", /no host/],
    ["ssh:[::1", /no host/],
    ["ssh:-oProxyCommand=x", /dash/],
    ["ssh:-x@far", /dash/],
    ["ssh:far:", /begins with a slash/],
    ["ssh:far:kemari.ctl", /begins with a slash/],
    ["ssh:far:4000", /path of a control socket/],
    ["ssh:far:/a\nb", /no host/],
    ["ssh:far:/" + "x".repeat(107), /107 bytes/],
    ["ssh:far:/" + "é".repeat(54), /107 bytes/],
  ];
  for (const [text, message] of wrong) {
    assert.throws(() => parseSshAddress(text), (error) => {
      return error instanceof UsageError && message.test(error.message) && error.hint !== undefined;
    }, text);
  }
  assert.throws(() => parseSshAddress("ssh:far:22"), (error) => {
    return error instanceof UsageError && /--ssh "ssh -p PORT"/.test(error.hint!);
  });
});
