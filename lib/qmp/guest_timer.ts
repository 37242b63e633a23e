/**
 * Whether checkpoints make a guest's clock stand still, judged by QEMU's answers and its stream.
 *
 * KVM's in-kernel 8254 timer (PIT) is set anew by QEMU whenever the VM goes on, and counts a whole
 * period from then. A guest that uses its ticks gets only whole periods of the time between two
 * checkpoints: none at all if the checkpoints are closer than a period. Measured with QEMU 11.1;
 * 7.2 and 10.0 do the same:
 *
 * ```text
 * ticks a second, of      18.2     50    100   1000
 * checkpoints each 2 ms    0       0.8    0     521
 *                 10 ms    0       6     46     767
 *                 20 ms    0      25     75     946
 *                100 ms   10      45     95     988
 *                200 ms   15      48     98     990
 * ```
 *
 * A PIT in QEMU (`kernel-irqchip=split`) goes on where it was, and loses only the pauses; the local
 * APIC's timer loses nothing. So it matters whether the PIT is KVM's, and whether the guest uses
 * it: firmware leaves it running, and Linux, which uses the APIC's timer, masks its interrupt.
 *
 * @see QEMU hw/i386/kvm/i8254.c, kvm_pit_vm_state_change(); Linux arch/x86/kvm/i8254.c,
 *   kvm_pit_load_count()
 */
import type { JsonObject, QmpCommand } from "./codec.ts";

/** The questions to QEMU. A QEMU that does not know one of them is no error. */
export const GUEST_TIMER_QUERIES = {
  unattached: { execute: "qom-list", arguments: { path: "/machine/unattached" } },
  interrupts: { execute: "human-monitor-command", arguments: { "command-line": "info pic" } },
} as const satisfies Record<string, QmpCommand>;

/**
 * The answers by the names of the questions, and the stream's section; what is absent is unknown.
 */
interface GuestTimerFacts {
  readonly unattached?: unknown;
  readonly interrupts?: unknown;
  /** The fields of a stream's section `i8254`, version 3, behind its header. */
  readonly pitState?: Uint8Array;
}

/** How the guest uses channel 0 of the PIT, the one that interrupts. */
type PitUse = "periodic" | "one-shot" | "none" | "unknown";

/** A guest's clock, as far as known. */
export interface GuestTimer {
  /** Whether the PIT is KVM's rather than QEMU's; `undefined` if QEMU does not tell. */
  readonly inKernelPit: boolean | undefined;
  readonly pit: PitUse;
  /** Milliseconds from tick to tick, or of the longest wait; known only with the PIT's state. */
  readonly periodMs: number | undefined;
  /** A warning for the operator, in whole sentences; absent if checkpoints do no harm. */
  readonly warning: string | undefined;
}

/** The PIT's counts per second. */
const PIT_HZ = 1_193_182;

/** Judges a guest's clock. Never throws. */
export function judgeGuestTimer(facts: GuestTimerFacts): GuestTimer {
  const inKernelPit = decodeInKernelPit(facts.unattached);
  const reaches = decodePitRoute(facts.interrupts);
  const state = facts.pitState === undefined ? undefined : decodePitState(facts.pitState);
  const pit = useOf(reaches, state);
  const periodMs = state === undefined ? undefined : state.count / PIT_HZ * 1000;
  const warning = inKernelPit === true ? warningOf(pit, periodMs) : undefined;
  return { inKernelPit, pit, periodMs, warning };
}

/**
 * The interval between checkpoints at which an in-kernel PIT keeps nearly all of its ticks: a
 * little more than a whole number of periods, as many as fit into the wanted interval. Measured at
 * 11.1, ticks a second: 89 of 100 at 11 ms, 46 of 50 at 21 ms and 47 at 42 ms, 17.7 of 18.2 at 56
 * ms. Checkpoints that held output asks for come in between, and spoil this.
 *
 * @param wantedMs The wanted interval, which is not to be exceeded.
 * @param pauseMs How long a checkpoint stops the VM.
 * @returns `undefined` if not even one period fits.
 */
export function tickingIntervalMs(
  periodMs: number,
  wantedMs: number,
  pauseMs: number,
): number | undefined {
  const lostMs = pauseMs + 1;
  for (let periods = Math.floor((wantedMs - lostMs) / periodMs); periods >= 1; periods--) {
    const intervalMs = Math.ceil(periods * periodMs + lostMs);
    if (intervalMs <= wantedMs) return intervalMs;
  }
  return undefined;
}

/** @returns `undefined` if it is no answer to `qom-list`. */
function decodeInKernelPit(reply: unknown): boolean | undefined {
  if (!Array.isArray(reply)) return undefined;
  return reply.some((item) => {
    return typeof item === "object" && item !== null &&
      (item as JsonObject).type === "child<kvm-pit>";
  });
}

/** Of an I/O APIC's entry. */
const PIN_MASKED = 0x10000n;
const DELIVERY_MODE_SHIFT = 8n;
/** Fixed and lowest priority: the interrupt itself. In the mode ExtINT, the 8259 decides. */
const OWN_DELIVERY_MODES: ReadonlySet<bigint> = new Set([0n, 1n]);
/** ISA's interrupt 0 is wired to pin 2, or to pin 0 if the firmware does not say otherwise. */
const PIT_PINS: ReadonlySet<string> = new Set(["0", "2"]);

/**
 * Reads HMP's `info pic`, which has the same lines in 5.2 to 11.1, with KVM's controllers and with
 * QEMU's:
 *
 * ```text
 * ioapic0: ver=0x11 id=0x00 sel=0x14 (redir[2])
 *   pin 2  0x0000000000000032 dest=0 vec=50  active-hi edge         fixed  physical
 * pic0: irr=01 imr=ff isr=00 hprio=0 irq_base=20 rr_sel=0 elcr=00 fnm=0
 * ```
 *
 * @returns Whether interrupt 0 gets through either controller; `undefined` if the text does not
 *   tell.
 */
function decodePitRoute(reply: unknown): boolean | undefined {
  if (typeof reply !== "string") return undefined;
  const mask = /^pic0: .*\bimr=([0-9a-f]{2})\b/m.exec(reply)?.[1];
  if (mask !== undefined && (parseInt(mask, 16) & 1) === 0) return true;
  let controller = "";
  for (const line of reply.split("\n")) {
    controller = /^(\w+):/.exec(line)?.[1] ?? controller;
    const pin = /^ +pin (\d+) +0x([0-9a-f]{16})\b/.exec(line);
    if (pin === null || controller !== "ioapic0" || !PIT_PINS.has(pin[1])) continue;
    const entry = BigInt(`0x${pin[2]}`);
    if ((entry & PIN_MASKED) !== 0n) continue;
    if (OWN_DELIVERY_MODES.has((entry >> DELIVERY_MODE_SHIFT) & 7n)) return true;
  }
  return mask === undefined ? undefined : false;
}

/** The PIT's channel 0. */
interface PitState {
  /** Whether the HPET has taken its interrupt over. */
  readonly irqDisabled: boolean;
  /** Counts of a period, 1 to 65536. */
  readonly count: number;
  /** The 8254's mode, 0 to 5; 6 and 7 are names of 2 and 3 that QEMU and KVM do not know. */
  readonly mode: number;
}

const CHANNEL_BYTES = 32;
const PIT_STATE_BYTES = 4 + 3 * CHANNEL_BYTES + 8;

/**
 * Decodes the fields of a section `i8254`.
 *
 * Wire shape, big-endian: `u32` irq_disabled; three channels of `i32` count, `u16` latched_count,
 * ten `u8` (count_latched, status_latched, status, read_state, write_state, write_latch, rw_mode,
 * mode, bcd, gate), `i64` count_load_time, `i64` next_transition_time; `i64` next_transition_time.
 *
 * @returns `undefined` if the bytes cannot be such fields.
 * @see QEMU hw/timer/i8254_common.c, vmstate_pit_common
 */
function decodePitState(bytes: Uint8Array): PitState | undefined {
  if (bytes.length !== PIT_STATE_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const irqDisabled = view.getUint32(0);
  const count = view.getInt32(4);
  const mode = view.getUint8(4 + 13);
  const gate = view.getUint8(4 + 15);
  if (irqDisabled > 1 || count < 0 || count > 65536 || mode > 7 || gate > 1) return undefined;
  // A PIT that was never programmed counts from 0, which means 65536.
  return { irqDisabled: irqDisabled === 1, count: count || 65536, mode };
}

/** @param reaches Whether the PIT's interrupt gets through. */
function useOf(reaches: boolean | undefined, state: PitState | undefined): PitUse {
  if (reaches === false || state?.irqDisabled === true) return "none";
  if (state === undefined) return "unknown";
  switch (state.mode) {
    case 2:
    case 3:
      return reaches === undefined ? "unknown" : "periodic";
    case 1:
    case 4:
    case 5:
      return reaches === undefined ? "unknown" : "one-shot";
    default:
      // Linux shuts a PIT down by mode 0: the interrupt comes once more, and the guest does not
      // wait for it.
      return "none";
  }
}

function warningOf(pit: PitUse, periodMs: number | undefined): string | undefined {
  if (pit === "none") return undefined;
  const cure = "Add kernel-irqchip=split to QEMU's -machine, on both sides.";
  const cause = "which KVM starts anew behind each checkpoint";
  if (pit === "unknown" || periodMs === undefined) {
    return `The VM has KVM's own 8254 timer, ${cause}: a guest whose clock it is stands still ` +
      `with checkpoints closer than its ticks (54.9 ms at the most). ${cure}`;
  }
  const ms = periodMs.toFixed(1).replace(/\.0$/, "");
  if (pit === "one-shot") {
    return `The guest waits for KVM's own 8254 timer (${ms} ms at the last), ${cause}: ` +
      `with checkpoints closer than a wait, that never ends. ${cure}`;
  }
  return `The guest's clock is KVM's own 8254 timer, ${cause}: ` +
    `with checkpoints closer than its ticks (${ms} ms) it stands still, and with others it is ` +
    `slow. ` +
    cure;
}
