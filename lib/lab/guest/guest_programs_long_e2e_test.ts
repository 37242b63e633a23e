import assert from "node:assert/strict";
import { ensureQemu } from "../provision/qemu.ts";
import { startVm } from "../vms/vm.ts";
import { ensureGuest } from "./guest.ts";
import { type GuestProgram, guestPrograms } from "./guest_programs.ts";

Deno.test("e2e: Debian programs run in the guest with their libraries", async () => {
  const versions: Readonly<Record<GuestProgram, [string, RegExp]>> = {
    fio: ["/opt/fio --version", /^fio-3/],
    iperf3: ["/opt/iperf3 --version", /^iperf 3/],
    iozone: ["/opt/iozone -v", /Version .*Revision: 3/],
    socat: ["/opt/socat -V", /socat version 1\./],
    mke2fs: ["/opt/mke2fs -V", /^mke2fs 1/],
  };
  const { program } = await ensureQemu("11.1");
  const guest = await ensureGuest({
    extras: await guestPrograms(Object.keys(versions) as GuestProgram[]),
  });
  await using vm = await startVm({ name: "programs", qemu: program, guest, memoryMiB: 512 });
  await vm.ready();
  for (const [command, expected] of Object.values(versions)) {
    const { code, output } = await vm.run(command);
    assert.equal(code, 0, output);
    assert.match(output, expected);
  }
});
