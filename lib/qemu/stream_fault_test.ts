import assert from "node:assert/strict";
import { WireError } from "../errors.ts";
import { CONFIGURED, expectFault, type FaultCase, parse, RAM_OPEN } from "./testing/fault_cases.ts";
import {
  capabilities,
  checkpointBody,
  command,
  concat,
  configuration,
  deviceState,
  EOS,
  fullStream,
  HEADER,
  memSize,
  name,
  ramSection,
  REQUEST,
  SEND,
  u32,
  u64,
  VMDESC,
} from "./testing/synthetic_stream.ts";
import { COLO_MESSAGE, COMMAND, LIMITS, SECTION } from "./wire.ts";

const LISTED = [CONFIGURED, RAM_OPEN, memSize()];

const checkpointOpen = [fullStream(), REQUEST, SEND, ramSection("END"), SECTION.QEMU_VM_EOF];

const CASES: readonly FaultCase[] = [
  { of: "text", good: [], bad: ["GET / HTTP/1.1\r\n"], fault: "bad-magic", message: /0x47455420/ },
  {
    of: "another version",
    good: [],
    bad: ["QEVM", u32(4)],
    at: 4,
    fault: "bad-version",
    message: /version 4/,
  },
  {
    of: "a section type that does not exist",
    good: CONFIGURED,
    bad: [0x42],
    fault: "bad-value",
    message: /0x42/,
  },
  {
    of: "a VMDESCRIPTION out of place",
    good: CONFIGURED,
    bad: [SECTION.QEMU_VM_VMDESCRIPTION],
    fault: "bad-value",
    message: /VMDESCRIPTION.*where a section begins/,
  },
  {
    of: "a second CONFIGURATION",
    good: CONFIGURED,
    bad: [configuration()],
    fault: "bad-order",
    message: /CONFIGURATION/,
  },
  {
    of: "a machine name of 4 GiB",
    good: [HEADER],
    bad: [SECTION.QEMU_VM_CONFIGURATION, u32(0xffffffff)],
    at: 1,
    fault: "bad-length",
    message: /4294967295/,
  },
  {
    of: "a machine without a name",
    good: [HEADER],
    bad: [SECTION.QEMU_VM_CONFIGURATION, u32(0)],
    at: 1,
    fault: "bad-length",
    message: /0 bytes/,
  },
  {
    of: "a machine name that is no text",
    good: [HEADER, SECTION.QEMU_VM_CONFIGURATION, u32(2), "a"],
    bad: [0x1b, 0],
    fault: "bad-value",
    message: /0x1b/,
  },
  {
    of: "pages of 2^63 bytes",
    good: [HEADER],
    bad: [configuration("toy", 63), 0],
    at: 8 + 2 + "configuration/target-page-bits".length + 4,
    fault: "bad-value",
    message: /2\^63/,
  },
  {
    of: "a subsection twice",
    good: [HEADER, configuration()],
    bad: [configuration().subarray(8), 0],
    fault: "bad-value",
    message: /target-page-bits twice/,
    at: 0,
  },
  {
    of: "an unknown subsection",
    good: [HEADER, configuration()],
    bad: [SECTION.QEMU_VM_SUBSECTION, name("configuration/new"), u32(1), u32(0), 0],
    fault: "unsupported",
    message: /configuration\/new/,
  },
  {
    of: "a capability that changes the stream",
    good: [HEADER],
    bad: [configuration("toy", 10, capabilities("mapped-ram")), 0],
    fault: "unsupported",
    message: /mapped-ram/,
  },
  ...[4, 5, 6, 7, 9, 10, 99].map((code): FaultCase => ({
    of: `command ${code}`,
    good: CONFIGURED,
    bad: [command(code, u32(1))],
    fault: "unsupported",
    message: new RegExp(`command ${code} `),
  })),
  {
    of: "a PING of 5 bytes",
    good: CONFIGURED,
    bad: [command(COMMAND.MIG_CMD_PING, u32(1), 0)],
    at: 3,
    fault: "bad-length",
    message: /PING.*5 bytes/,
  },
  ...["dirty-bitmap", "vfio", "block", "slirp"].map((of): FaultCase => ({
    of: `iterable section ${of}`,
    good: CONFIGURED,
    bad: [SECTION.QEMU_VM_SECTION_START, u32(3), name(of), u32(0), u32(1)],
    fault: "unsupported",
    message: new RegExp(`"${of}"`),
  })),
  {
    of: "a ram section of another version",
    good: [CONFIGURED, SECTION.QEMU_VM_SECTION_START, u32(2), name("ram"), u32(0)],
    bad: [u32(3)],
    fault: "bad-version",
    message: /version 3/,
  },
  {
    of: "a section that goes on without having begun",
    good: CONFIGURED,
    bad: [SECTION.QEMU_VM_SECTION_PART, u32(2)],
    fault: "bad-value",
    message: /section 2 .* never started/,
  },
  {
    of: "RAM of almost 2^64 bytes, told to the last digit",
    good: [CONFIGURED, RAM_OPEN],
    bad: [u64(2n ** 64n - 1024n | 4n)],
    fault: "too-large",
    message: /announces 18446744073709550592 bytes of RAM/,
  },
  {
    of: "a RAM block of 2^64 - 1 bytes",
    good: [CONFIGURED, RAM_OPEN, u64(1024 | 4), name("pc.ram")],
    bad: [u64(2n ** 64n - 1n)],
    fault: "bad-length",
    message: /RAM block pc.ram of 18446744073709551615 bytes, with 1024/,
  },
  {
    of: "a RAM record far behind its block",
    good: [LISTED],
    bad: [u64(2n ** 64n - 1024n | 2n), name("pc.ram"), 0],
    fault: "bad-value",
    message: /a RAM record at 18446744073709550592 lies outside block pc.ram/,
  },
  {
    of: "a device before the RAM",
    good: [CONFIGURED, ramSection("START", memSize())],
    bad: [SECTION.QEMU_VM_SECTION_FULL, u32(9), name("virtio-mem-early")],
    fault: "unsupported",
    message: /"virtio-mem-early" in front/,
  },
  {
    of: "an end before the RAM's",
    good: [CONFIGURED, ramSection("START", memSize())],
    bad: [SECTION.QEMU_VM_EOF, VMDESC],
    fault: "bad-order",
    message: /before its RAM/,
  },
  {
    of: "something else than a footer",
    good: [LISTED, EOS],
    bad: [0x7f],
    fault: "bad-value",
    message: /footer/,
  },
  {
    of: "a footer of another section",
    good: [LISTED, EOS, SECTION.QEMU_VM_SECTION_FOOTER],
    bad: [u32(3)],
    fault: "bad-value",
    message: /footer of section 3/,
  },
  {
    of: "a checkpoint that starts ram anew",
    good: [fullStream(), REQUEST, SEND],
    bad: [ramSection("START", memSize())],
    fault: "bad-order",
    message: /START inside a checkpoint/,
  },
  {
    of: "a checkpoint with a device among its RAM",
    good: [fullStream(), REQUEST, SEND],
    bad: [deviceState(1)],
    fault: "bad-order",
    message: /before the end of a checkpoint's RAM/,
  },
  ...[0, 2, 4, 5, 6, 7, 0x42000000].map((message): FaultCase => ({
    of: `message ${message} between checkpoints`,
    good: [fullStream()],
    bad: [u32(message)],
    fault: "bad-value",
    protocol: "colo",
    message: new RegExp(`message ${message} `),
  })),
  {
    of: "a checkpoint that was not asked for",
    good: [fullStream()],
    bad: [SEND],
    fault: "bad-order",
    protocol: "colo",
    message: /without CHECKPOINT_REQUEST/,
  },
  {
    of: "a checkpoint asked for twice",
    good: [fullStream(), REQUEST],
    bad: [REQUEST],
    fault: "bad-order",
    protocol: "colo",
    message: /twice/,
  },
  {
    of: "another stream in place of a checkpoint",
    good: [fullStream(), REQUEST],
    bad: [HEADER],
    fault: "bad-value",
    protocol: "colo",
    message: /where QEMU asks/,
  },
  {
    of: "another message for VMSTATE_SIZE",
    good: checkpointOpen,
    bad: [REQUEST, u64(10)],
    fault: "bad-order",
    protocol: "colo",
    message: /where VMSTATE_SIZE belongs/,
  },
  ...[0n, BigInt(LIMITS.deviceStateBytes) + 1n, 2n ** 64n - 1n].map((size): FaultCase => ({
    of: `device state of ${size} bytes`,
    good: [checkpointOpen, u32(COLO_MESSAGE.VMSTATE_SIZE)],
    bad: [u64(size)],
    fault: "too-large",
    protocol: "colo",
    message: new RegExp(`device state of ${size} bytes; 1 to \\d+ are accepted`),
  })),
];

for (const each of CASES) {
  Deno.test(`${each.of} is refused where it stands`, () => expectFault(each));
}

Deno.test("VMSTATE_SIZE that lies, short or long, is found out", () => {
  const size = deviceState(1).length;
  const body = checkpointBody(1);
  const sizeAt = body.length - size - 8;
  for (const lie of [1, size - 1, size - 6, size + 1, size + 4]) {
    const stream = concat(fullStream(), REQUEST, SEND, body, REQUEST, SEND, checkpointBody(2));
    stream.set(u64(lie), fullStream().length + 8 + sizeAt);
    assert.throws(() => parse(stream), WireError, `${lie} for ${size}`);
  }
});
