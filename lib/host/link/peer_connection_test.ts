import assert from "node:assert/strict";
import { chooseSecurity } from "../../decisions/link_security.ts";
import { parseAddress } from "../system/address.ts";
import { never } from "../system/never.ts";
import { Reactor } from "../system/reactor.ts";
import { LinkGuard } from "../tls/link_guard.ts";
import { connectPeer } from "./peer_connection.ts";

Deno.test("a command that a connection goes through does not end with the terminal's keys, and is ended by us", async () => {
  const reactor = new Reactor();
  const address = parseAddress(
    "exec:kill -INT $$; kill -QUIT $$; kill -HUP $$; echo here; exec cat",
  );
  const guard = LinkGuard.open(chooseSecurity({}), "sender", address);
  const { transport, command } = await connectPeer(address, guard, reactor, 1000, never);
  const buffer = new Uint8Array(16);
  let heard = "";
  const watch = transport.watch(reactor, {
    readable: () => {
      const count = transport.read(buffer);
      assert.notEqual(count, 0, "it has ended");
      heard += new TextDecoder().decode(buffer.subarray(0, count));
    },
  });
  watch.want(true, false);
  await reactor.run(() => heard === "here\n", never);
  watch.stop();
  command!.kill();
  assert.equal(await command!.exitCode, 128 + 15);
  transport.close();
  reactor.close();
});
