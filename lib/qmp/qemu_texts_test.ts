import assert from "node:assert/strict";
import { QemuError } from "../errors.ts";
import { adviceOnBlocker, wantsReturnPath } from "./qemu_texts.ts";

Deno.test("that QEMU wants return-path is told by its reason, and by no command's name", () => {
  const refusal = (command: string, reason: string) =>
    wantsReturnPath(new QemuError(command, "GenericError", reason));
  const wants = "Capability 'x-colo' requires capability 'return-path'";
  assert.equal(refusal("migrate-set-capabilities", wants), true);
  assert.equal(refusal("migrate-set-capabilities", "COLO is not currently supported"), false);
  assert.equal(refusal("set return-path", "no"), false);
});

Deno.test("advice is given on blockers that are known, and on no others", () => {
  const cases: [string, RegExp | undefined][] = [
    ["0000:00:03.0: VFIO migration is not supported in kernel", /remove that device/],
    ["State blocked by non-migratable device '0000:00:04.0/nvme'", /remove that device/],
    ["State blocked by non-migratable CPU device (invtsc flag)", /without the invtsc/],
    ["Migration is disabled when VirtFS export path '/srv' is mounted", /unmount/],
    ["disallowing migration blocker", undefined],
  ];
  for (const [reason, advice] of cases) {
    const given = adviceOnBlocker(reason);
    if (advice === undefined) assert.equal(given, undefined);
    else assert.match(given!, advice);
  }
});
