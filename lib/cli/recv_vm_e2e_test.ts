/** `--vm` and `--replace`, with a recorded VM. */
import assert from "node:assert/strict";
import { loadStream } from "../lab/recording/streams.ts";
import { KemariProcess } from "../lab/program/kemari_process.ts";
import { askReceiver } from "../lab/program/ask_end.ts";
import { never } from "../host/system/never.ts";

const STREAM = loadStream("plain-11.1-bios");

Deno.test("recv keeps the VM that --vm names, over its own death, until --replace says otherwise", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-vm-", dir: "/dev/shm" });
  const receiver = (...more: string[]) =>
    new KemariProcess([
      ...["recv", `unix:${folder}/s`, "--control", `${folder}/c`, "--ram-dir", `${folder}/ram`],
      ...more,
    ]);
  const sender = (vm: string) =>
    new KemariProcess(["send", `unix:${folder}/s`, "--vm", vm], { stdin: "piped" });
  /** Sends the VM, and dies before it is handed over. */
  const send = async (recv: KemariProcess, vm: string) => {
    await using send = sender(vm);
    await send.write(STREAM);
    await recv.waitFor(/first transaction committed/);
    send.signal("SIGKILL");
    await send.ended();
    await recv.waitFor(/sender lost/);
  };
  const refused = async (vm: string) => {
    await using send = sender(vm);
    // It reads no more once it is refused.
    await send.write(STREAM).catch(() => {});
    const { code, stderr } = await send.ended();
    assert.equal(code, 3);
    return stderr;
  };
  const vmOf = async () => {
    const { vm } = await askReceiver(`${folder}/c`, never);
    return vm?.name;
  };
  try {
    {
      await using first = receiver();
      await first.listening();
      await send(first, "one");
      assert.equal(await vmOf(), "one");
      first.signal("SIGKILL");
      await first.ended();
    }
    {
      await using second = receiver();
      await second.waitFor(/going on with transaction 1 of pc-i440fx-.*, VM one/);
      await second.listening();
      assert.match(
        await refused("two"),
        /keeps transaction 1 of VM one, and the sender's is another one, VM two/,
      );
      await second.waitFor(/a sender was refused/);
      assert.equal(await vmOf(), "one");
      second.signal("SIGKILL");
      await second.ended();
    }
    await using third = receiver("--replace");
    await third.listening();
    await send(third, "two");
    await third.waitFor(/VM two is about to replace transaction 1 of VM one/);
    assert.equal(await vmOf(), "two");
    assert.match(await refused("one"), /VM two, and the sender's is another one, VM one/);
    third.signal("SIGKILL");
    await third.ended();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
