import assert from "node:assert/strict";
import fc from "fast-check";
import { judgeGuestTimer, tickingIntervalMs } from "./guest_timer.ts";

/** Answers as QEMU gave them, without what nobody reads. */
const KVM_PIT = [
  { name: "device[0]", type: "child<qemu64-x86_64-cpu>" },
  { name: "device[4]", type: "child<kvm-i8259>" },
  { name: "device[6]", type: "child<kvm-pit>" },
];
const QEMU_PIT = [
  { name: "device[5]", type: "child<isa-i8259>" },
  { name: "device[7]", type: "child<isa-pit>" },
];

const PIC1 = "pic1: irr=00 imr=ff isr=00 hprio=0 irq_base=28 rr_sel=0 elcr=00 fnm=0";
const PIC_OPEN = "pic0: irr=00 imr=f6 isr=00 hprio=0 irq_base=20 rr_sel=0 elcr=00 fnm=0";
const PIC_MASKED = "pic0: irr=1b imr=ff isr=00 hprio=0 irq_base=30 rr_sel=0 elcr=00 fnm=0";
const IOAPIC = "ioapic0: ver=0x11 id=0x00 sel=0x00";
const PIN_0_MASKED =
  "  pin 0  0x0000000000010000 dest=0 vec=0   active-hi edge  masked fixed  physical";
const PIN_0_EXTINT =
  "  pin 0  0x0000000000000700 dest=0 vec=0   active-hi edge         ExtINT physical";
const PIN_2_MASKED =
  "  pin 2  0x0000000000010000 dest=0 vec=0   active-hi edge  masked fixed  physical";
const PIN_2_OPEN =
  "  pin 2  0x0000000000000032 dest=0 vec=50  active-hi edge         fixed  physical";
const PIN_2_LINUX =
  "  pin 2  0x0100000000000830 dest=1 vec=48  active-hi edge         fixed  logical";
const REST = "  IRR      (none)\n  Remote IRR (none)";

/** 7.2 and 11.1 tell the I/O APIC first, 5.2 and 10.0 the 8259. */
const ioapicFirst = (pin2: string, pic0: string, pin0 = PIN_0_MASKED) =>
  [IOAPIC, pin0, pin2, REST, PIC1, pic0, ""].join("\n");
const picFirst = (pin2: string, pic0: string, pin0 = PIN_0_MASKED) =>
  [PIC1, pic0, IOAPIC, pin0, pin2, REST, ""].join("\n").replaceAll("\n", "\r\n");

/** Sections as QEMU wrote them. */
const STATES = {
  "11.1, 50 Hz": "0000000000005d37000000000003033703020001ffffffffffff11a6ffffffffffff11a7" +
    "00010000000000000000000000030001ffffffffffff61c20000000000000000" +
    "00010000000000000000000000030000ffffffffffff61e00000000000000000ffffffffffff11a7",
  "5.2, 50 Hz": "0000000000005d37000000000003033703020001ffffffffffff379effffffffffff379f" +
    "0001000000000000000000000003000100000000000006220000000000000000" +
    "00010000000000000000000000030000000000000000063b0000000000000000ffffffffffff379f",
  "a firmware's": "00000000000100000000000000030300030200010000000001b1cceb00000000083dfd9d" +
    "0001000000000000000000000003000100000000000000000000000000000000" +
    "000100000000000000000000000300000000000000000000000000000000000000000000083dfd9d",
  "Linux, its interrupt the HPET's":
    "00000001000100000000000000030300030200010000000001d54dbf000000002faaa29f" +
    "0001000000000000000000000003000100000000000000000000000000000000" +
    "0000ffff00000000000303ff03000001000000001cf71d7f0000000000000000000000002faaa29f",
  "Linux, shut down": "00000000000100000000000000030300030000010000000065c326c5ffffffffffffffff" +
    "0001000000000000000000000003000100000000000000000000000000000000" +
    "0000ffff00000000000303ff0300000100000000386ce8a60000000000000000ffffffffffffffff",
} as const;

function stateOf(name: keyof typeof STATES): Uint8Array {
  return Uint8Array.from(STATES[name].match(/../g)!, (pair) => parseInt(pair, 16));
}

Deno.test("a guest that is known to live on an in-kernel PIT is warned of, with its period", () => {
  for (const pitState of [stateOf("11.1, 50 Hz"), stateOf("5.2, 50 Hz")]) {
    for (
      const interrupts of [
        ioapicFirst(PIN_2_MASKED, PIC_OPEN),
        picFirst(PIN_2_MASKED, PIC_OPEN),
        ioapicFirst(PIN_2_OPEN, PIC_MASKED),
        picFirst(PIN_2_OPEN, PIC_MASKED),
      ]
    ) {
      const timer = judgeGuestTimer({ unattached: KVM_PIT, interrupts, pitState });
      assert.equal(timer.inKernelPit, true);
      assert.equal(timer.pit, "periodic");
      assert.equal(timer.periodMs?.toFixed(2), "20.00");
      assert.match(timer.warning!, /closer than its ticks \(20 ms\) it stands still/);
      assert.match(timer.warning!, /kernel-irqchip=split/);
    }
  }
});

Deno.test("a firmware's PIT ticks 18.2 times a second while its interrupt gets through", () => {
  const pitState = stateOf("a firmware's");
  const interrupts = picFirst(PIN_2_MASKED, PIC_OPEN);
  const timer = judgeGuestTimer({ unattached: KVM_PIT, interrupts, pitState });
  assert.match(timer.warning!, /\(54\.9 ms\)/);
});

Deno.test("a guest that does not use the PIT is not warned of", () => {
  const cases = {
    "masked everywhere, and left running": {
      interrupts: ioapicFirst(PIN_2_MASKED, PIC_MASKED),
      pitState: stateOf("a firmware's"),
    },
    "masked everywhere, which is all that is known": {
      interrupts: picFirst(PIN_2_MASKED, PIC_MASKED),
    },
    "the 8259 is let through the I/O APIC, and is masked": {
      interrupts: ioapicFirst(PIN_2_MASKED, PIC_MASKED, PIN_0_EXTINT),
      pitState: stateOf("a firmware's"),
    },
    "Linux whose pin 2 is the HPET's": {
      interrupts: ioapicFirst(PIN_2_LINUX, PIC_MASKED),
      pitState: stateOf("Linux, its interrupt the HPET's"),
    },
    "Linux without an HPET": {
      interrupts: ioapicFirst(PIN_2_LINUX, PIC_MASKED),
      pitState: stateOf("Linux, shut down"),
    },
  };
  for (const [name, facts] of Object.entries(cases)) {
    const timer = judgeGuestTimer({ unattached: KVM_PIT, ...facts });
    assert.equal(timer.pit, "none", name);
    assert.equal(timer.warning, undefined, name);
  }
});

Deno.test("a PIT in QEMU is none to warn of, nor is one that nobody tells of", () => {
  const facts = {
    interrupts: ioapicFirst(PIN_2_MASKED, PIC_OPEN),
    pitState: stateOf("11.1, 50 Hz"),
  };
  for (const unattached of [QEMU_PIT, [], undefined, null, "child<kvm-pit>", {}]) {
    const timer = judgeGuestTimer({ ...facts, unattached });
    assert.equal(timer.inKernelPit, Array.isArray(unattached) ? false : undefined);
    assert.equal(timer.pit, "periodic");
    assert.equal(timer.warning, undefined);
  }
});

Deno.test("what cannot be told is said as what may be", () => {
  const open = ioapicFirst(PIN_2_LINUX, PIC_MASKED);
  const cases = [
    {},
    { interrupts: open },
    { interrupts: "", pitState: stateOf("11.1, 50 Hz") },
    { interrupts: "unknown command: 'info pic'\r\n" },
    { interrupts: [IOAPIC, PIN_2_MASKED].join("\n") },
    { interrupts: open, pitState: stateOf("11.1, 50 Hz").subarray(1) },
  ];
  for (const facts of cases) {
    const timer = judgeGuestTimer({ unattached: KVM_PIT, ...facts });
    assert.equal(timer.pit, "unknown");
    assert.match(timer.warning!, /a guest whose clock it is stands still/);
  }
});

Deno.test("pins of another I/O APIC are not the PIT's", () => {
  const interrupts = ioapicFirst(PIN_2_MASKED, PIC_MASKED) +
    `ioapic1: ver=0x20 id=0x01 sel=0x00\n${PIN_2_OPEN}\n`;
  assert.equal(judgeGuestTimer({ unattached: KVM_PIT, interrupts }).pit, "none");
});

Deno.test("each mode of the PIT has its use, and a state that cannot be is none", () => {
  const interrupts = ioapicFirst(PIN_2_MASKED, PIC_OPEN);
  const changed = (offset: number, value: number) => {
    const pitState = stateOf("11.1, 50 Hz");
    pitState[offset] = value;
    return judgeGuestTimer({ unattached: KVM_PIT, interrupts, pitState });
  };
  const uses = ["none", "one-shot", "periodic", "periodic", "one-shot", "one-shot", "none", "none"];
  uses.forEach((use, mode) => assert.equal(changed(17, mode).pit, use, `mode ${mode}`));
  assert.match(changed(17, 4).warning!, /waits for KVM's own 8254 timer \(20 ms at the last\)/);
  for (const [offset, value] of [[17, 8], [3, 2], [4, 0x80], [5, 2], [19, 2]]) {
    const { pit, periodMs } = changed(offset, value);
    assert.deepEqual([pit, periodMs], ["unknown", undefined], `${value} at ${offset}`);
  }
});

Deno.test("no answer and no state makes it throw", () => {
  const texts = ["pic0:", "imr=", "ioapic0:", "  pin 2  0x", "f6", "\n", "0000000000000032", " "];
  const text = fc.oneof(fc.string(), fc.array(fc.constantFrom(...texts)).map((a) => a.join("")));
  fc.assert(fc.property(
    fc.oneof(fc.anything(), fc.array(fc.record({ type: fc.anything() }))),
    fc.oneof(text, fc.anything()),
    fc.option(fc.uint8Array({ minLength: 100, maxLength: 116 }), { nil: undefined }),
    (unattached, interrupts, pitState) => {
      const { warning, inKernelPit } = judgeGuestTimer({ unattached, interrupts, pitState });
      assert.ok(warning === undefined || inKernelPit === true);
    },
  ));
});

Deno.test("an interval that keeps a PIT ticking is a little more than whole periods", () => {
  const cases: [periodMs: number, wantedMs: number, pauseMs: number, intervalMs?: number][] = [
    [10, 2, 0.6, undefined],
    [20, 20, 0, undefined],
    [20, 21, 0, 21],
    [20, 22, 0, 21],
    [20, 41, 0, 41],
    [10, 100, 0.6, 92],
    [54.925, 2, 0.5, undefined],
    [54.925, 100, 0.5, 57],
    [1, 2, 0, 2],
  ];
  for (const [periodMs, wantedMs, pauseMs, intervalMs] of cases) {
    assert.equal(tickingIntervalMs(periodMs, wantedMs, pauseMs), intervalMs, `${periodMs}`);
  }
});
