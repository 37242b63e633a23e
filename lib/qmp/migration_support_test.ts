import assert from "node:assert/strict";
import { QemuError } from "../errors.ts";
import {
  probeCapabilities,
  refusalOf,
  sleepQueries,
  type SupportReplies,
} from "./migration_support.ts";

/** A QEMU that can be protected; `changes` make it another. */
function replies(major: number, minor: number, changes: SupportReplies = {}): SupportReplies {
  return {
    version: { qemu: { major, minor, micro: 3 }, package: "Debian 1" },
    capabilities: ["x-colo", "return-path", "events"].map((capability) => ({
      capability,
      state: false,
    })),
    parameters: { "tls-creds": "" },
    kvm: { enabled: false, present: true },
    migration: {},
    status: { status: "running", running: true },
    block: [],
    memdevs: [{ id: "pc.ram", size: 512 * 2 ** 20 }],
    suppressVmdesc: false,
    ...changes,
  };
}

const KVM = { kvm: { enabled: true, present: true } };

Deno.test("probeCapabilities chooses the mode that this QEMU can keep up", async (t) => {
  const noColo = { capabilities: [{ capability: "return-path", state: false }] };
  const noReturnPath = { capabilities: [{ capability: "x-colo", state: false }] };
  const cases: [string, SupportReplies, "colo" | "snapshot", RegExp][] = [
    ["7.2 under TCG", replies(7, 2), "snapshot", /7\.2 hangs in COLO under tcg/],
    ["5.1 under KVM", replies(5, 1, KVM), "snapshot", /older than any/],
    ["5.2 under KVM", replies(5, 2, KVM), "colo", /kvm \(measured\)/],
    ["6.0 under KVM", replies(6, 0, KVM), "colo", /not measured/],
    ["7.2 under KVM", replies(7, 2, KVM), "colo", /kvm \(measured\)/],
    ["7.2 under mshv", replies(7, 2, { accelerators: { enabled: "mshv" } }), "snapshot", /mshv/],
    ["9.2 under TCG", replies(9, 2), "snapshot", /hangs/],
    ["10.0 under TCG", replies(10, 0), "snapshot", /10\.0 hangs/],
    ["10.0 under KVM", replies(10, 0, KVM), "colo", /kvm \(measured\)/],
    ["10.1 under KVM", replies(10, 1, KVM), "colo", /not measured/],
    ["11.0 under KVM", replies(11, 0, KVM), "colo", /not measured/],
    ["11.1 under TCG", replies(11, 1), "colo", /under tcg \(measured\)/],
    ["11.1 under KVM", replies(11, 1, KVM), "colo", /under kvm \(measured\)/],
    ["12.0", replies(12, 0), "colo", /12\.0.*not measured/],
    ["built without COLO", replies(11, 1, noColo), "snapshot", /no x-colo/],
    ["without return path", replies(11, 1, noReturnPath), "snapshot", /return path/],
  ];
  for (const [name, given, mode, reason] of cases) {
    await t.step(name, () => {
      const support = probeCapabilities(given);
      assert.equal(support.mode, mode);
      assert.equal(support.colo, mode === "colo");
      assert.match(support.coloReason, reason);
      assert.match(support.reason, reason);
      assert.deepEqual(support.blockers, []);
      assert.equal(refusalOf(support), undefined);
    });
  }
});

Deno.test("probeCapabilities keeps a QEMU that aborts with a dirty ring out of COLO", () => {
  const ring = { dirtyRing: "GenericError" };
  for (const minor of [0, 1]) {
    const old = probeCapabilities(replies(10, minor, KVM), ring);
    assert.equal(old.mode, "snapshot");
    assert.match(old.coloReason, /aborts in COLO where KVM has a dirty ring.*start it without/);
    assert.deepEqual(old.blockers, []);
  }
  assert.equal(probeCapabilities(replies(11, 1, KVM), ring).mode, "colo");
  // 6.1 was the first with a ring, 7.1 the first that can be asked.
  const unknown = { dirtyRing: "CommandNotFound" };
  assert.equal(probeCapabilities(replies(6, 2, KVM), unknown).mode, "snapshot");
  assert.equal(probeCapabilities(replies(5, 2, KVM), unknown).mode, "colo");
  assert.equal(probeCapabilities(replies(6, 2), unknown).mode, "snapshot");
});

Deno.test("probeCapabilities tells version, accelerator and state", () => {
  const support = probeCapabilities(replies(11, 1, { accelerators: { enabled: "mshv" } }));
  assert.deepEqual(support.version, { major: 11, minor: 1, micro: 3, text: "11.1.3 (Debian 1)" });
  assert.equal(support.accelerator, "mshv");
  assert.equal(support.runState, "running");
  assert.equal(support.returnPath, true);
  assert.deepEqual(JSON.parse(JSON.stringify(support)), support);
});

Deno.test("probeCapabilities names everything that stands in the way", async (t) => {
  const cases: [string, SupportReplies, RegExp][] = [
    [
      "a device that cannot migrate",
      { migration: { "blocked-reasons": ["non-migratable device: 0000:00:02.0/nvme"] } },
      /0000:00:02\.0\/nvme\): remove that device/,
    ],
    [
      "a CPU flag",
      { migration: { "blocked-reasons": ["State blocked by non-migratable CPU (invtsc flag)"] } },
      /without the invtsc/,
    ],
    ["an unknown reason", { migration: { "blocked-reasons": ["Moon."] } }, /blocked \(Moon\)\.$/],
    ["a running migration", { migration: { status: "active" } }, /under way already \(active\)/],
    ["COLO already", { migration: { status: "colo" } }, /under way already \(colo\)/],
    ["no VM yet", { status: { status: "inmigrate" } }, /waits for an incoming migration/],
    [
      "a VM on its way",
      { status: { status: "inmigrate" }, migration: { status: "active" } },
      /its VM has not arrived/,
    ],
    [
      "what a migration left",
      { status: { status: "postmigrate" } },
      /\(postmigrate\): protect it where it/,
    ],
    ["a guest that has shut down", { status: { status: "shutdown" } }, /shut down/],
    ["a broken vCPU", { status: { status: "internal-error" } }, /must be reset/],
    ["a cancelled COLO", { migration: { status: "cancelling" } }, /started anew/],
    ["a state of the future", { status: { status: "dreaming" } }, /state dreaming/],
    ["TLS", { parameters: { "tls-creds": "tls0" } }, /tls-creds/],
    ["no capabilities", { capabilities: undefined }, /cannot migrate/],
  ];
  for (const [name, changes, message] of cases) {
    await t.step(name, () => {
      const support = probeCapabilities(replies(11, 1, changes));
      assert.equal(support.blockers.length, 1);
      assert.match(support.blockers[0], message);
      const refusal = refusalOf(support);
      assert.ok(refusal instanceof QemuError);
      assert.match(refusal.message, message);
    });
  }
});

Deno.test("probeCapabilities accepts a failed or completed migration before it", () => {
  for (const status of ["failed", "completed", "cancelled"]) {
    const support = probeCapabilities(
      replies(11, 1, { migration: { status }, status: { status: "running" } }),
    );
    assert.deepEqual(support.blockers, []);
  }
});

Deno.test("probeCapabilities warns of writable disks that do not pass through kemari", () => {
  const disk = (device: string, file: string, ro: boolean) => ({ device, inserted: { ro, file } });
  const support = probeCapabilities(replies(11, 1, {
    block: [
      disk("d0", "/srv/a.raw", false),
      disk("cd0", "/srv/b.iso", true),
      disk("d1", "nbd+unix://?socket=/run/k", false),
      disk("d2", "nbd:unix:/run/k", false),
      { device: "fd0" },
    ],
  }));
  assert.equal(support.warnings.length, 1);
  assert.match(support.warnings[0], /^Writes to d0 do not/);
});

Deno.test("probeCapabilities warns of a machine that offers S3, and names the option that turns it off", () => {
  const warnings = (disableS3: unknown, acpiType: unknown = "PIIX4_PM") =>
    probeCapabilities(replies(11, 1, { disableS3, acpiType })).warnings;
  for (const offered of [0, false]) {
    assert.match(warnings(offered)[0], /-global PIIX4_PM\.disable_s3=1/);
    assert.match(warnings(offered, "ICH9-LPC")[0], /-global ICH9-LPC\.disable_s3=1/);
  }
  for (const not of [1, true, undefined, null, "0"]) assert.deepEqual(warnings(not), []);
  assert.deepEqual(warnings(0, null), []);
  assert.deepEqual(Object.keys(sleepQueries("/machine/x/pm")), ["acpiType", "disableS3"]);
  for (const none of [undefined, "", null, {}]) assert.deepEqual(sleepQueries(none), {});
});

Deno.test("probeCapabilities makes do with what a QEMU answers, and needs the version", () => {
  const support = probeCapabilities({ version: { qemu: { major: 6, minor: 0 } } });
  assert.equal(support.mode, "snapshot");
  assert.equal(support.version.text, "6.0.0");
  for (const odd of [undefined, null, 3, "x", [], {}]) {
    assert.throws(() => probeCapabilities({ version: odd }), QemuError);
    assert.ok(probeCapabilities({
      ...replies(11, 1),
      capabilities: odd,
      kvm: odd,
      migration: odd,
      status: odd,
      block: odd,
      parameters: odd,
      accelerators: odd,
    }));
  }
});

Deno.test("probeCapabilities refuses RAM that tcg loses sight of, and nothing else", () => {
  const memdevs = (...sizes: number[]) => ({
    memdevs: sizes.map((size, i) => ({ id: `m${i}`, size })),
  });
  const MiB = 2 ** 20;
  const blockers = (changes: SupportReplies) => probeCapabilities(replies(11, 1, changes)).blockers;
  assert.match(blockers(memdevs(128 * MiB, 64 * MiB))[0], /loses sight .*\(m0, m1\).*256 KiB/);
  assert.match(blockers(memdevs(128 * MiB - 4096, 64 * MiB))[0], /\(m1\)/);
  assert.deepEqual(blockers(memdevs(128 * MiB - 4096, 64 * MiB + 4096)), []);
  assert.deepEqual(blockers(memdevs(64 * MiB)), []);
  assert.deepEqual(blockers({ ...memdevs(128 * MiB, 64 * MiB), ...KVM }), []);
  assert.deepEqual(blockers({ memdevs: undefined }), []);
});

Deno.test("a VM that an operator has not let run yet is no reason to refuse", () => {
  const waiting = ["prelaunch", "paused", "suspended", "io-error", "watchdog", "guest-panicked"];
  for (const status of [...waiting, "debug", "save-vm", "restore-vm"]) {
    const support = probeCapabilities(replies(11, 1, { status: { status } }));
    assert.deepEqual(support.blockers, []);
    assert.match(support.standsStill!, new RegExp(`\\(${status}\\b`));
  }
  assert.equal(probeCapabilities(replies(11, 1)).standsStill, undefined);
});

Deno.test("a VM that may arrive yet is told from one that is not to be protected", () => {
  const arriving = probeCapabilities(replies(11, 1, { status: { status: "inmigrate" } }));
  assert.match(arriving.arrives!, /inmigrate/);
  const migration = { status: "postcopy-active" };
  const half = probeCapabilities(replies(11, 1, { migration }));
  assert.match(half.arrives!, /postcopy-active/);
  assert.deepEqual(half.blockers, [half.arrives]);
  const source = probeCapabilities(
    replies(11, 1, { migration, status: { status: "finish-migrate" } }),
  );
  assert.equal(source.arrives, undefined);
  for (const status of ["running", "paused", "postmigrate", "colo"]) {
    const { arrives } = probeCapabilities(replies(11, 1, { status: { status } }));
    assert.equal(arrives, undefined, status);
  }
});

Deno.test("probeCapabilities tells the settings that are to be put back", () => {
  const parameters = { "tls-creds": "", "max-bandwidth": 7, "x-checkpoint-delay": 8 };
  const support = probeCapabilities(replies(11, 1, { parameters, suppressVmdesc: true }));
  assert.deepEqual(support.parameters, { "max-bandwidth": 7, "x-checkpoint-delay": 8 });
  assert.equal(support.suppressVmdesc, true);
  assert.deepEqual(support.blockers, []);
  const old = probeCapabilities(replies(5, 2, { suppressVmdesc: undefined, parameters: null }));
  assert.equal(old.suppressVmdesc, undefined);
  assert.deepEqual(old.parameters, {});
});
