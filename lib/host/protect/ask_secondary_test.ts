import assert from "node:assert/strict";
import { chooseSecurity } from "../../decisions/link_security.ts";
import { parseAddress } from "../system/address.ts";
import { Reactor } from "../system/reactor.ts";
import { LinkGuard } from "../tls/link_guard.ts";
import type { SenderLinkSettings } from "../link/sender_link_settings.ts";
import { askSecondary } from "./ask_secondary.ts";

Deno.test("a secondary behind ssh is asked by ssh, and none is started for that", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-ask-" });
  const reactor = new Reactor();
  try {
    const ssh = `${folder}/ssh`;
    await Deno.writeTextFile(ssh, `#!/bin/sh\necho "$*" >>${folder}/calls\nexit 255\n`, {
      mode: 0o755,
    });
    const options = { ssh, remoteKemari: "kemari", overSsh: true, startRecv: "unix:/s --exec cat" };
    const target = parseAddress("ssh:far", options);
    const guard = LinkGuard.open(chooseSecurity({}), "sender", target);
    // Nobody is reached: what would be said does not matter.
    const settings = {} as SenderLinkSettings;
    assert.equal(await askSecondary(target, guard, settings, reactor), "unheard");
    const calls = Deno.readTextFileSync(`${folder}/calls`);
    assert.match(calls, /-- far kemari attach '\/run\/kemari\.ctl'\n/);
    assert.doesNotMatch(calls, /--start/);
    const command = parseAddress("exec:false");
    assert.equal(await askSecondary(command, guard, settings, reactor), "unheard");
  } finally {
    reactor.close();
    await Deno.remove(folder, { recursive: true });
  }
});
