import assert from "node:assert/strict";
import { sshFailure } from "./ssh_failure.ts";

const CHANGED = [
  "@@@@@@@@@@@@@@@@@@",
  "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @",
  "Offending ED25519 key in /root/.ssh/known_hosts:1",
  "Host key for far has changed and you have requested strict checking.",
  "Host key verification failed.",
];

const ENDS: [code: number, lines: string[], said: string, message: RegExp, hint: RegExp][] = [
  [
    255,
    ["ssh: Could not resolve hostname far: Name or service not known"],
    "",
    /cannot log in: ssh: Could not/,
    /check the name/,
  ],
  [255, CHANGED, "", /log in: Host key verification failed/, /another key than it had/],
  [255, ["Host key verification failed."], "", /verification failed/, /compare the host's key/],
  [255, ["me@far: Permission denied (publickey)."], "", /Permission denied/, /ssh-copy-id/],
  [255, ["ssh: connect to host far port 22: Connection refused"], "", /refused/, /is the host up/],
  [255, ["something new"], "", /log in: something new/, /ssh me@far true/],
  [255, [], "", /cannot log in$/, /ssh me@far true/],
  [
    127,
    ["bash: line 1: kemari: command not found"],
    "",
    /no kemari on that host: bash/,
    /--remote-kemari/,
  ],
  [126, ["sh: 1: kemari: Permission denied"], "", /cannot be run/, /mode/],
  [2, ["error: unknown command 'attach'"], "", /does not know how to attach/, /older/],
  [1, [], "", /ended with 1$/, /kemari --version/],
  [1, [], "This account is not available", /"This account is not available" was said/, /--version/],
  [137, ["a\x1b[2Jb"], "", /137: a\\u\{1b\}\[2Jb/, /./],
];

for (const [code, lines, said, message, hint] of ENDS) {
  Deno.test(`ssh that ended with ${code} and "${lines.join("; ")}${said}" is explained`, () => {
    const words = sshFailure({ login: "ssh me@far", code, lines, said, isGreeted: false });
    assert.match(words.message, message);
    assert.match(words.hint, hint);
    assert.ok(words.message.length < 500);
  });
}

Deno.test("a kemari that has spoken, and ended, is not said to be missing", () => {
  const end = { login: "ssh far", lines: ["Killed"], said: "", isGreeted: true };
  assert.match(sshFailure({ ...end, code: 255 }).message, /lost its connection.* 255: Killed/);
  assert.match(sshFailure({ ...end, code: 127 }).message, /kemari ended there.* 127: Killed/);
});
