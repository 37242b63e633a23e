import assert from "node:assert/strict";
import { UsageError } from "../../errors.ts";
import { checkNetTaps, parseNetTap } from "./net_tap_address.ts";

Deno.test("parseNetTap takes a TAP or a socket as OUT", () => {
  assert.deepEqual(parseNetTap("net0=unix:/run/a=b.net,tap:tap0"), {
    name: "net0",
    in: { kind: "unix", path: "/run/a=b.net", text: "unix:/run/a=b.net" },
    out: { kind: "tap", ifname: "tap0", text: "tap:tap0" },
  });
  assert.deepEqual(parseNetTap("n-1=unix:in,unix:out").out, {
    kind: "unix",
    path: "out",
    text: "unix:out",
  });
});

Deno.test("parseNetTap says what is wrong", () => {
  const cases: [string, RegExp][] = [
    ["", /no NAME=/],
    ["unix:/a,tap:t", /no NAME=/],
    ["=unix:/a,tap:t", /the name ""/],
    ["a b=unix:/a,tap:t", /the name "a b"/],
    [`${"x".repeat(33)}=unix:/a,tap:t`, /1 to 32/],
    ["n=unix:/a", /no comma/],
    ["n=unix:/a,tap:t,x", /more than one comma/],
    ["n=tcp:h:1,tap:t", /must be unix:PATH, where QEMU/],
    ["n=unix:,tap:t", /socket path/],
    [`n=unix:/${"x".repeat(200)},tap:t`, /socket path/],
    ["n=unix:/a,eth0", /must be tap:IFNAME or unix:PATH/],
    ["n=unix:/a,tap:", /1 to 15 bytes/],
    ["n=unix:/a,tap:sixteen-letters-", /1 to 15 bytes/],
    ["n=unix:/a,tap:t%d", /no interface/],
    ["n=unix:/a,tap:a/b", /no interface/],
    ["n=unix:/a,tap:..", /no interface/],
  ];
  for (const [text, message] of cases) {
    assert.throws(
      () => parseNetTap(text),
      (error) => error instanceof UsageError && message.test(error.message) && !!error.hint,
      text,
    );
  }
});

Deno.test("checkNetTaps refuses taps that share a name, a socket or a TAP", () => {
  const parse = (...texts: string[]) => checkNetTaps(texts.map(parseNetTap));
  parse("a=unix:/a,tap:t0", "b=unix:/b,tap:t1");
  const cases: [string, string, RegExp][] = [
    ["a=unix:/a,tap:t0", "a=unix:/b,tap:t1", /name a is used twice/],
    ["a=unix:/a,tap:t0", "b=unix:/a,tap:t1", /a and b: both unix:\/a/],
    ["a=unix:/a,tap:t0", "b=unix:/b,tap:t0", /a and b: both tap:t0/],
    ["a=unix:/a,unix:/b", "b=unix:/b,tap:t0", /a and b: both unix:\/b/],
  ];
  for (const [first, second, message] of cases) {
    assert.throws(
      () => parse(first, second),
      (error) => error instanceof UsageError && message.test(error.message),
    );
  }
  assert.throws(() => parse("a=unix:/a,unix:/a"), UsageError);
});
