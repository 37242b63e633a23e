import assert from "node:assert/strict";
import { errno, libc } from "../../host/system/libc.ts";
import { AF_INET, ERRNO, SOCK_STREAM } from "../../host/system/linux.ts";
import { NetLab, netLabMissing } from "./net_lab.ts";
import { insideNamespace } from "./net_sniffer.ts";

const missing = await netLabMissing();
if (missing !== undefined) console.error(`SKIP the network namespace tests: ${missing}`);

/** Connects to the loopback of wherever the socket belongs. @returns 0, or the error number. */
function connectTo(fd: number, port: number): number {
  const sockaddr = new Uint8Array(16);
  const view = new DataView(sockaddr.buffer);
  view.setUint16(0, AF_INET, true);
  view.setUint16(2, port);
  sockaddr.set([127, 0, 0, 1], 4);
  return libc().connect(fd, sockaddr, sockaddr.length) === 0 ? 0 : errno();
}

Deno.test({
  name: "e2e: a socket made inside a namespace belongs to it, others do not",
  ignore: missing !== undefined,
  async fn() {
    await using lab = await NetLab.make();
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const open = () => libc().socket(AF_INET, SOCK_STREAM, 0);
    const there = insideNamespace(lab.client, open);
    const here = open();
    try {
      assert.equal(connectTo(there, listener.addr.port), ERRNO.ECONNREFUSED);
      assert.equal(connectTo(here, listener.addr.port), 0);
      (await listener.accept()).close();
    } finally {
      for (const fd of [there, here]) libc().close(fd);
    }
    assert.throws(() => insideNamespace("kemari-no-such", open), /kemari-no-such/);
    assert.throws(() =>
      insideNamespace(lab.client, () => {
        throw new Error("inside");
      }), /inside/);
    const after = open();
    assert.equal(connectTo(after, listener.addr.port), 0);
    libc().close(after);
  },
});
