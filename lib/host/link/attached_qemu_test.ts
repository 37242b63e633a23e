import assert from "node:assert/strict";
import { TransportError } from "../../errors.ts";
import { HEADER_BYTES } from "../../txn/wire.ts";
import { libc } from "../system/libc.ts";
import { O_CLOEXEC, O_NONBLOCK } from "../system/linux.ts";
import { Reactor } from "../system/reactor.ts";
import { AttachedQemu } from "./attached_qemu.ts";
import { Stage } from "./testing/link_stage.ts";
import { socketConnection } from "./peer_connection.ts";
import { SenderLink } from "./sender_link.ts";

function pipe(): { read: number; write: number } {
  const fds = new Int32Array(2);
  libc().pipe2(new Uint8Array(fds.buffer), O_NONBLOCK | O_CLOEXEC);
  return { read: fds[0], write: fds[1] };
}

Deno.test("a QEMU that hears nothing any more is found so once", () => {
  const reactor = new Reactor();
  const stream = pipe();
  const back = pipe();
  const channel = { input: stream.read, output: back.write, name: "QEMU" };
  const qemu = new AttachedQemu(reactor, channel, { readable: () => {}, writable: () => {} });
  qemu.answer([new Uint8Array(1)]);
  assert.equal(qemu.hears, true);
  libc().close(back.read);
  assert.throws(() => qemu.answer([new Uint8Array(1)]), TransportError);
  assert.equal(qemu.hears, false);
  qemu.answer([new Uint8Array(1)]);
  qemu.stop();
  for (const fd of [stream.read, stream.write, back.write]) libc().close(fd);
  reactor.close();
});

Deno.test("the end of QEMU's stream is found once: the session lasts until it is ended", async () => {
  await using stage = await Stage.open();
  const stream = pipe();
  libc().close(stream.write);
  const link = new SenderLink(
    stage.reactor,
    socketConnection(await stage.connect(), "the socket"),
    {
      commit: "async",
      stream: "colo",
      maxInFlightBytes: 2 ** 26,
      heartbeatMs: 20,
      graceMs: 5000,
      software: "test",
    },
  );
  link.attach({ input: stream.read, output: -1, name: "QEMU" });
  const failures: unknown[] = [];
  await stage.reactor.runOn(() => failures.length > 0, (failure) => failures.push(failure));
  const { framing } = link.sent;
  // Some heartbeats later.
  const goesOn = () => link.sent.framing >= framing + 4 * HEADER_BYTES || failures.length > 100;
  await stage.reactor.runOn(goesOn, (failure) => failures.push(failure));
  assert.equal(failures.length, 1, `${failures}`);
  link.close();
  await stage.quiet();
  libc().close(stream.read);
});
