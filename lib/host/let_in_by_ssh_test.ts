import assert from "node:assert/strict";
import type { AttachRequest } from "../control/attach_request.ts";
import { TransportError } from "../errors.ts";
import { MOST_SESSION_KEYS, SessionKeys } from "../keys/session_keys.ts";
import type { Entrance } from "./door/entrance.ts";
import { letInBySsh } from "./let_in_by_ssh.ts";
import { openSocketPair } from "./system/descriptor_passing.ts";
import { libc } from "./system/libc.ts";
import type { Transport } from "./system/transport.ts";

const BOUND = { host: "10.0.0.2", port: 4000 };
const DIRECT: AttachRequest = { way: "direct", identity: "session-1", key: "5a".repeat(32) };
const OVER: AttachRequest = { way: "over-ssh" };

/** Where a receiver would let senders in: they are kept. */
class FakeEntrance implements Pick<Entrance, "bound" | "admit"> {
  readonly came: Transport[] = [];

  constructor(readonly bound: Entrance["bound"] = BOUND) {}

  admit(peer: Transport): void {
    this.came.push(peer);
  }
}

/** A receiver that is asked. */
interface Asked {
  readonly passed?: readonly number[];
  readonly isEncrypted?: boolean;
  readonly keys?: SessionKeys;
  readonly find?: () => FakeEntrance | undefined;
}

function letIn(
  request: AttachRequest,
  { passed = [], isEncrypted = true, keys, find = () => new FakeEntrance() }: Asked = {},
) {
  const guard = { sessionKeys: keys ?? new SessionKeys(), isEncrypted };
  return letInBySsh(request, [...passed], "here:1", guard, find);
}

/** Descriptors that are open. */
const openCount = () => [...Deno.readDirSync("/proc/self/fd")].length;

Deno.test("a key that ssh brings is known from then on, and its sender is told where to connect", async () => {
  const keys = new SessionKeys();
  assert.deepEqual(await letIn(DIRECT, { keys }), BOUND);
  const key = keys.find("session-1", performance.now());
  assert.deepEqual(key?.key, new Uint8Array(32).fill(0x5a));
});

function starting(): never {
  throw new TransportError("recv", "connect", "still starting", { party: "user" });
}

const REFUSALS: [what: string, AttachRequest, Asked, descriptors: number, message: RegExp][] = [
  ["of a recv that is starting", DIRECT, { find: starting }, 0, /still starting/],
  ["over ssh, of a recv that is starting", OVER, { find: starting }, 2, /still starting/],
  ["of a recv on its stdin", DIRECT, { find: () => undefined }, 2, /here:1: .*at no port/],
  [
    "of a recv at a Unix socket",
    DIRECT,
    { find: () => Object.assign(new FakeEntrance(), { bound: undefined }) },
    0,
    /listens at no port/,
  ],
  ["of a recv that is plain", DIRECT, { isEncrypted: false }, 0, /takes plain connections/],
  ["over ssh, of a recv on its stdin", OVER, { find: () => undefined }, 2, /one connection/],
  ["over ssh, without descriptors", OVER, {}, 0, /two descriptors/],
  ["over ssh, with one descriptor", OVER, {}, 1, /two descriptors/],
];

for (const [what, request, asked, descriptors, message] of REFUSALS) {
  Deno.test(`a request ${what} is refused, and what was passed is closed`, () => {
    const before = openCount();
    const { ours, theirs } = openSocketPair("test");
    const passed = [ours, theirs].slice(0, descriptors);
    for (const fd of [ours, theirs].slice(descriptors)) libc().close(fd);
    assert.throws(() => letIn(request, { ...asked, passed }), (error) => {
      assert.ok(error instanceof TransportError && error.party === "user", `${error}`);
      return message.test(error.message);
    });
    assert.equal(openCount(), before);
  });
}

Deno.test("so many keys wait at once, and no more", () => {
  const keys = new SessionKeys();
  for (let i = 0; i < MOST_SESSION_KEYS; i++) letIn({ ...DIRECT, identity: `s-${i}` }, { keys });
  assert.throws(() => letIn({ ...DIRECT, identity: "more" }, { keys }), /too many senders/);
});

Deno.test("a session over ssh begins behind the answer, on what was passed, until it is closed", async () => {
  const { ours, theirs } = openSocketPair("test");
  const entrance = new FakeEntrance();
  const own = Number(libc().fcntl(theirs, 1030, /* F_DUPFD_CLOEXEC */ 0n));
  let isOver = false;
  const over = letIn(OVER, { passed: [theirs, own], find: () => entrance })
    .then(() => isOver = true);
  const [peer] = entrance.came;
  peer.push([new TextEncoder().encode("session")]);
  assert.ok(peer.flush());
  const buffer = new Uint8Array(64);
  const count = Number(libc().read(ours, buffer, 64n));
  assert.equal(new TextDecoder().decode(buffer.subarray(0, count)), '{"ok":true}\nsession');
  // Nobody waits for a descriptor that has nothing.
  assert.equal(peer.read(buffer), undefined);
  await Promise.resolve();
  assert.equal(isOver, false);
  peer.close();
  await over;
  assert.equal(libc().read(ours, buffer, 64n), 0n, "both are closed");
  libc().close(ours);
});
