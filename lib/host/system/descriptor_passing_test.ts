import assert from "node:assert/strict";
import { TransportError } from "../../errors.ts";
import {
  openSocketPair,
  receiveWithDescriptors,
  sendWithDescriptors,
} from "./descriptor_passing.ts";
import { libc } from "./libc.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

/** Descriptors of this process. */
function openCount(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

Deno.test("descriptors come with the bytes that they were sent with, and are close-on-exec", () => {
  const { ours, theirs } = openSocketPair("test");
  const pipe = openSocketPair("test");
  const buffer = new Uint8Array(64);
  try {
    assert.equal(sendWithDescriptors(ours, bytes("plain"), [], "test", "host"), 5);
    assert.deepEqual(receiveWithDescriptors(theirs, buffer, "test", "host"), { count: 5, fds: [] });
    assert.equal(
      sendWithDescriptors(ours, bytes("two\n"), [pipe.ours, pipe.theirs], "test", "host"),
      4,
    );
    const { count, fds } = receiveWithDescriptors(theirs, buffer, "test", "host");
    assert.equal(new TextDecoder().decode(buffer.subarray(0, count)), "two\n");
    assert.equal(fds.length, 2);
    libc().write(fds[0], bytes("hello"), 5n);
    assert.equal(libc().read(pipe.theirs, buffer, 64n), 5n);
    assert.ok(fds.every((fd) => (libc().fcntl(fd, 1, /* F_GETFD */ 0n) & 1) === 1));
    for (const fd of fds) libc().close(fd);
  } finally {
    for (const fd of [ours, theirs, pipe.ours, pipe.theirs]) libc().close(fd);
  }
});

Deno.test("more descriptors than are taken leave none open", () => {
  const { ours, theirs } = openSocketPair("test");
  try {
    const before = openCount();
    sendWithDescriptors(ours, bytes("five"), [0, 0, 0, 0, 0], "test", "host");
    assert.throws(
      () => receiveWithDescriptors(theirs, new Uint8Array(8), "test", "control"),
      (error) => error instanceof TransportError && error.party === "control",
    );
    assert.equal(openCount(), before);
  } finally {
    libc().close(ours);
    libc().close(theirs);
  }
});

Deno.test("nothing there is no end, and an end is one", () => {
  const { ours, theirs } = openSocketPair("test");
  const buffer = new Uint8Array(8);
  assert.deepEqual(receiveWithDescriptors(ours, buffer, "test", "host").count, undefined);
  libc().close(theirs);
  assert.deepEqual(receiveWithDescriptors(ours, buffer, "test", "host"), { count: 0, fds: [] });
  libc().close(ours);
});
