import assert from "node:assert/strict";
import { dialAddress } from "./dial_address.ts";

Deno.test("a receiver is dialled where it listens, or where ssh has found its host", () => {
  const cases: [bound: string, sshHost: string, dialled: string | undefined][] = [
    ["0.0.0.0", "secondary.example", "secondary.example"],
    ["::", "192.0.2.7", "192.0.2.7"],
    ["::", "fe80::1%eth0", "fe80::1%eth0"],
    ["0:0:0:0:0:0:0:0", "secondary", "secondary"],
    ["::ffff:0.0.0.0", "secondary", "secondary"],
    ["10.9.0.2", "secondary.example", "10.9.0.2"],
    ["2001:db8::2", "secondary.example", "2001:db8::2"],
    ["10.9.0.2", "127.0.0.1", "10.9.0.2"],
    ["127.0.0.1", "secondary.example", undefined],
    ["127.1.2.3", "192.0.2.7", undefined],
    ["::1", "secondary.example", undefined],
    ["::ffff:127.0.0.1", "secondary.example", undefined],
    ["127.0.0.1", "localhost", "127.0.0.1"],
    ["127.0.1.1", "127.0.0.1", "127.0.1.1"],
    ["::1", "::1", "::1"],
    ["0.0.0.0", "localhost", "localhost"],
  ];
  for (const [bound, sshHost, dialled] of cases) {
    const wanted = dialled === undefined
      ? { answer: "unreachable" }
      : { answer: "dial", host: dialled };
    assert.deepEqual(dialAddress(bound, sshHost), wanted, `${bound} from ${sshHost}`);
  }
});
