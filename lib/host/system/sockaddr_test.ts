import assert from "node:assert/strict";
import { ipv4Sockaddr, ipv6Sockaddr, parseIpv6, readSockaddr } from "./sockaddr.ts";

Deno.test("addresses are read as they were written", () => {
  for (const host of ["0.0.0.0", "127.0.0.1", "192.0.2.255"]) {
    assert.deepEqual(readSockaddr(ipv4Sockaddr(host, 4000)), { host, port: 4000 });
  }
  const cases = [["::", "0:0:0:0:0:0:0:0"], ["::1", "0:0:0:0:0:0:0:1"], [
    "2001:db8::ff00:2",
    "2001:db8:0:0:0:0:ff00:2",
  ]];
  for (const [text, host] of cases) {
    assert.deepEqual(readSockaddr(ipv6Sockaddr(parseIpv6(text), 65535, 3)), { host, port: 65535 });
    assert.deepEqual(parseIpv6(host), parseIpv6(text));
  }
  assert.equal(readSockaddr(Uint8Array.of(1, 0, 47, 0)), undefined);
});
