import assert from "node:assert/strict";
import fc from "fast-check";
import { WireError, type WireFault } from "../errors.ts";
import {
  concatenate,
  decodeOptionReplies,
  encodeContexts,
  encodeFullHandshake,
  encodeInfo,
  encodeOption,
  encodeText,
  u16,
  u32,
} from "./testing/client_messages.ts";
import type { ExportInfo } from "./export_info.ts";
import { Handshake } from "./handshake.ts";
import {
  EXPORT_NAME_ZEROES,
  GREETING_BYTES,
  MAX_OPTION_BYTES,
  MAX_PAYLOAD_BYTES,
  NBD_FLAG,
  NBD_INFO,
  NBD_OPT,
  NBD_REP,
  readU16,
  readU32,
  readU64,
} from "./wire.ts";

const ROOT: ExportInfo = { name: "root", sizeBytes: 2 ** 40 + 512, multiConn: true };
const LOCKED: ExportInfo = {
  name: "naïve",
  sizeBytes: 1000,
  readOnly: true,
  description: "nobody writes here",
  minimumBlockBytes: 512,
};
const EXPORTS = [ROOT, LOCKED];
const FLAGS = u32(3);

function feed(handshake: Handshake, bytes: Uint8Array): number {
  let at = 0;
  while (at < bytes.length && handshake.chosen === undefined && !handshake.aborted) {
    const next = handshake.take(bytes, at, bytes.length, at);
    if (next === at) break;
    at = next;
  }
  return at;
}

/** A handshake whose greeting has been taken and whose client flags have been given. */
function begun(exports: readonly ExportInfo[] = EXPORTS, flags = FLAGS): Handshake {
  const handshake = new Handshake(exports);
  assert.equal(concatenate(...handshake.takeOutput()).length, GREETING_BYTES);
  assert.equal(feed(handshake, flags), 4);
  return handshake;
}

function ask(handshake: Handshake, option: Uint8Array) {
  assert.equal(feed(handshake, option), option.length);
  return decodeOptionReplies(concatenate(...handshake.takeOutput()));
}

const typesOf = (replies: readonly { type: number }[]) => replies.map(({ type }) => type);
const textOf = (data: Uint8Array) => new TextDecoder().decode(data);

function assertFault(act: () => unknown, fault: WireFault, offset: number): void {
  assert.throws(act, (error) => {
    assert.ok(error instanceof WireError, `${error}`);
    assert.deepEqual([error.protocol, error.fault, error.offset], ["nbd", fault, offset]);
    return true;
  });
}

Deno.test("the greeting offers fixed newstyle without the zeroes", () => {
  const greeting = concatenate(...new Handshake(EXPORTS).takeOutput());
  assert.equal(textOf(greeting.subarray(0, 16)), "NBDMAGICIHAVEOPT");
  assert.equal(readU16(greeting, 16), 3);
});

Deno.test("NBD_OPT_EXPORT_NAME ends haggling, with the zeroes unless they were waived", () => {
  for (const [flags, zeroes] of [[3, 0], [1, EXPORT_NAME_ZEROES], [0, EXPORT_NAME_ZEROES]]) {
    const handshake = begun(EXPORTS, u32(flags));
    feed(handshake, encodeOption(NBD_OPT.EXPORT_NAME, new TextEncoder().encode("naïve")));
    assert.deepEqual(handshake.chosen, { export: LOCKED, structured: false, allocation: false });
    const reply = concatenate(...handshake.takeOutput());
    assert.equal(reply.length, 10 + zeroes);
    assert.equal(readU64(reply, 0), 1000);
    assert.equal(readU16(reply, 8) & NBD_FLAG.READ_ONLY, NBD_FLAG.READ_ONLY);
    assert.equal(readU16(reply, 8) & (NBD_FLAG.SEND_TRIM | NBD_FLAG.SEND_DF), 0);
  }
});

Deno.test("NBD_OPT_GO tells size, flags and block sizes, and ends haggling", () => {
  const handshake = begun();
  assert.deepEqual(typesOf(ask(handshake, encodeOption(NBD_OPT.STRUCTURED_REPLY))), [NBD_REP.ACK]);
  const [info, sizes, ack] = ask(handshake, encodeInfo(NBD_OPT.GO, "root"));
  assert.deepEqual(typesOf([info, sizes, ack]), [NBD_REP.INFO, NBD_REP.INFO, NBD_REP.ACK]);
  assert.equal(readU16(info.data, 0), NBD_INFO.EXPORT);
  assert.equal(readU64(info.data, 2), 2 ** 40 + 512);
  assert.equal(
    readU16(info.data, 10),
    NBD_FLAG.HAS_FLAGS | NBD_FLAG.SEND_FLUSH | NBD_FLAG.SEND_FUA | NBD_FLAG.SEND_TRIM |
      NBD_FLAG.SEND_WRITE_ZEROES | NBD_FLAG.SEND_DF | NBD_FLAG.CAN_MULTI_CONN |
      NBD_FLAG.SEND_CACHE | NBD_FLAG.SEND_FAST_ZERO,
  );
  assert.deepEqual(
    [readU16(sizes.data, 0), ...[2, 6, 10].map((at) => readU32(sizes.data, at))],
    [NBD_INFO.BLOCK_SIZE, 1, 4096, MAX_PAYLOAD_BYTES],
  );
  assert.deepEqual(handshake.chosen, { export: ROOT, structured: true, allocation: false });
});

Deno.test("NBD_OPT_INFO tells what is asked for, and haggling goes on", () => {
  const handshake = begun();
  const { NAME, DESCRIPTION } = NBD_INFO;
  const replies = ask(handshake, encodeInfo(NBD_OPT.INFO, "naïve", NAME, DESCRIPTION, 77));
  const told = replies.slice(0, -1).map(({ data }) => [readU16(data, 0), textOf(data.subarray(2))]);
  assert.deepEqual(told.slice(2), [[NAME, "naïve"], [DESCRIPTION, "nobody writes here"]]);
  assert.equal(handshake.chosen, undefined);
});

Deno.test("the empty name means the only export there is, and none of several", () => {
  const one = begun([LOCKED]);
  ask(one, encodeInfo(NBD_OPT.GO, ""));
  assert.equal(one.chosen?.export, LOCKED);
  const replies = ask(begun(), encodeInfo(NBD_OPT.GO, ""));
  assert.deepEqual(typesOf(replies), [NBD_REP.ERR_UNKNOWN]);
});

Deno.test("NBD_OPT_LIST names the exports", () => {
  const replies = ask(begun(), encodeOption(NBD_OPT.LIST));
  assert.deepEqual(typesOf(replies), [NBD_REP.SERVER, NBD_REP.SERVER, NBD_REP.ACK]);
  const { data } = replies[1];
  const nameEnd = 4 + readU32(data, 0);
  assert.equal(textOf(data.subarray(4, nameEnd)), "naïve");
  assert.equal(textOf(data.subarray(nameEnd)), "nobody writes here");
});

Deno.test("NBD_OPT_ABORT is acknowledged, and is the end", () => {
  const handshake = begun();
  assert.deepEqual(typesOf(ask(handshake, encodeOption(NBD_OPT.ABORT))), [NBD_REP.ACK]);
  assert.ok(handshake.aborted);
});

Deno.test("metadata contexts are listed and set, the last setting counts", () => {
  const { LIST_META_CONTEXT: LIST, SET_META_CONTEXT: SET } = NBD_OPT;
  const cases: [number, string[], boolean][] = [
    [LIST, [], true],
    [LIST, ["base:"], true],
    [LIST, ["x-other:", "base:allocation"], true],
    [LIST, ["qemu:dirty-bitmap:a"], false],
    [SET, [], false],
    [SET, ["base:"], false],
    [SET, ["qemu:allocation-depth", "base:allocation"], true],
    [SET, ["base:allocation", "base:allocation"], true],
  ];
  for (const [option, queries, found] of cases) {
    const handshake = begun();
    ask(handshake, encodeOption(NBD_OPT.STRUCTURED_REPLY));
    const replies = ask(handshake, encodeContexts(option as typeof LIST, "root", ...queries));
    const expected = found ? [NBD_REP.META_CONTEXT, NBD_REP.ACK] : [NBD_REP.ACK];
    assert.deepEqual(typesOf(replies), expected, queries.join());
    if (found) assert.equal(textOf(replies[0].data.subarray(4)), "base:allocation");
    ask(handshake, encodeInfo(NBD_OPT.GO, "root"));
    assert.equal(handshake.chosen?.allocation, found && option === SET);
  }
  const changed = begun();
  ask(changed, encodeOption(NBD_OPT.STRUCTURED_REPLY));
  ask(changed, encodeContexts(SET, "root", "base:allocation"));
  ask(changed, encodeInfo(NBD_OPT.GO, "naïve"));
  assert.equal(changed.chosen?.allocation, false, "set for another export");
});

Deno.test("what is asked wrongly is refused, and haggling goes on", () => {
  const one = new Uint8Array(1);
  const longName = encodeText("x".repeat(5000));
  const cases: [string, Uint8Array, number][] = [
    ["unknown", encodeOption(4711, new Uint8Array(100)), NBD_REP.ERR_UNSUP],
    ["tls", encodeOption(NBD_OPT.STARTTLS), NBD_REP.ERR_POLICY],
    ["list with data", encodeOption(NBD_OPT.LIST, one), NBD_REP.ERR_INVALID],
    ["structured with data", encodeOption(NBD_OPT.STRUCTURED_REPLY, one), NBD_REP.ERR_INVALID],
    ["unknown export", encodeInfo(NBD_OPT.INFO, "nope"), NBD_REP.ERR_UNKNOWN],
    ["no data", encodeOption(NBD_OPT.GO), NBD_REP.ERR_INVALID],
    ["lying name", encodeOption(NBD_OPT.GO, concatenate(u32(9), u16(0))), NBD_REP.ERR_INVALID],
    ["lying count", encodeOption(NBD_OPT.GO, concatenate(u32(0), u16(2))), NBD_REP.ERR_INVALID],
    ["long name", encodeOption(NBD_OPT.GO, concatenate(longName, u16(0))), NBD_REP.ERR_INVALID],
    ["NUL", encodeInfo(NBD_OPT.GO, "a\0b"), NBD_REP.ERR_INVALID],
    [
      "no UTF-8",
      encodeOption(NBD_OPT.GO, concatenate(u32(1), new Uint8Array([0xff]), u16(0))),
      NBD_REP.ERR_INVALID,
    ],
    [
      "contexts first",
      encodeContexts(NBD_OPT.SET_META_CONTEXT, "root", "base:allocation"),
      NBD_REP.ERR_INVALID,
    ],
    [
      "too long",
      encodeOption(NBD_OPT.INFO, new Uint8Array(MAX_OPTION_BYTES + 1)),
      NBD_REP.ERR_TOO_BIG,
    ],
  ];
  for (const [what, option, type] of cases) {
    const handshake = begun();
    const replies = ask(handshake, option);
    assert.deepEqual(typesOf(replies), [type], what);
    assert.ok(replies[0].data.length > 0, "says why");
    assert.equal(handshake.chosen, undefined);
    assert.deepEqual(typesOf(ask(handshake, encodeOption(NBD_OPT.ABORT))), [NBD_REP.ACK]);
  }
  const structured = begun();
  ask(structured, encodeOption(NBD_OPT.STRUCTURED_REPLY));
  for (
    const data of [
      concatenate(encodeText("root"), u32(0xffffffff)),
      concatenate(encodeText("root"), u32(1), u32(5)),
      concatenate(encodeText("root"), u32(0), u32(0)),
    ]
  ) {
    const replies = ask(structured, encodeOption(NBD_OPT.LIST_META_CONTEXT, data));
    assert.deepEqual(typesOf(replies), [NBD_REP.ERR_INVALID]);
  }
});

Deno.test("what cannot be answered ends the connection", () => {
  const name = (text: string) => new TextEncoder().encode(text);
  assertFault(() => feed(new Handshake(EXPORTS), u32(4)), "unsupported", 0);
  assertFault(() => feed(begun(), name("GET / HTTP/1.1\r\n")), "bad-magic", 0);
  const unknown = encodeOption(NBD_OPT.EXPORT_NAME, name("nope"));
  assertFault(() => feed(begun(), unknown), "refused", 0);
  const huge = encodeOption(NBD_OPT.EXPORT_NAME, new Uint8Array(0), 2 ** 32 - 1);
  assertFault(() => feed(begun(), huge), "too-large", 12);
});

Deno.test("haggling is the same wherever the bytes are cut", () => {
  const said = encodeFullHandshake("root");
  const whole = new Handshake(EXPORTS);
  assert.equal(feed(whole, said), said.length);
  const expected = concatenate(...whole.takeOutput());
  for (let cut = 0; cut <= said.length; cut++) {
    const handshake = new Handshake(EXPORTS);
    const taken = feed(handshake, said.subarray(0, cut));
    assert.equal(handshake.chosen !== undefined, cut === said.length);
    feed(handshake, said.subarray(taken));
    assert.deepEqual(handshake.chosen, whole.chosen);
    assert.deepEqual(concatenate(...handshake.takeOutput()), expected);
  }
});

Deno.test("mutated haggling is answered or refused, never anything else", () => {
  const said = concatenate(
    FLAGS,
    encodeOption(NBD_OPT.LIST),
    encodeContexts(NBD_OPT.LIST_META_CONTEXT, "root"),
    encodeFullHandshake("naïve").subarray(4),
  );
  const change = fc.tuple(fc.nat(said.length - 1), fc.nat(255));
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
      const mutated = said.slice();
      for (const [at, value] of changes) mutated[at] = value;
      const handshake = new Handshake(EXPORTS);
      handshake.takeOutput();
      try {
        assert.ok(feed(handshake, mutated) <= mutated.length);
      } catch (error) {
        assert.ok(error instanceof WireError, `${error}`);
      }
      if (handshake.chosen === undefined) {
        decodeOptionReplies(concatenate(...handshake.takeOutput()));
      }
    }),
    { seed: 5, numRuns: 500 },
  );
});
