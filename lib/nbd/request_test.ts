import assert from "node:assert/strict";
import { WireError } from "../errors.ts";
import { encodeRequest, type RequestFields } from "./testing/client_messages.ts";
import type { ExportInfo } from "./export_info.ts";
import { decodeRequest, judgeRequest } from "./request.ts";
import { MAX_PAYLOAD_BYTES, NBD_CMD, NBD_CMD_FLAG, NBD_ERROR } from "./wire.ts";

const { EINVAL, ENOSPC, EPERM } = NBD_ERROR;
const SIZE = 2 ** 30;
const PLAIN: ExportInfo = { name: "plain", sizeBytes: SIZE };

function judge(
  command: number,
  fields: RequestFields,
  info: Partial<ExportInfo> = {},
  structured = true,
): number | undefined {
  const request = decodeRequest(encodeRequest(command, fields), 0, 0);
  const negotiated = { export: { ...PLAIN, ...info }, structured, allocation: structured };
  const fault = judgeRequest(request, negotiated);
  assert.ok(fault === undefined || fault.message.length > 0);
  return fault?.error;
}

Deno.test("a request's fields survive the wire", () => {
  const bytes = encodeRequest(NBD_CMD.TRIM, {
    flags: NBD_CMD_FLAG.FUA,
    cookie: 0x1234_5678_9abc,
    offset: 2 ** 52 + 1,
    length: 0xffffffff,
  });
  assert.deepEqual(decodeRequest(bytes, 0, 0), {
    command: NBD_CMD.TRIM,
    flags: NBD_CMD_FLAG.FUA,
    cookieHigh: 0x1234,
    cookieLow: 0x5678_9abc,
    offset: 2 ** 52 + 1,
    length: 0xffffffff,
  });
  bytes.fill(0xff, 16, 24);
  assert.equal(decodeRequest(bytes, 0, 0).offset, Infinity);
  bytes[0] = 0;
  assert.throws(
    () => decodeRequest(bytes, 0, 77),
    (error) => error instanceof WireError && error.fault === "bad-magic" && error.offset === 77,
  );
});

Deno.test("requests that fit are served", () => {
  const range = { offset: SIZE - 1, length: 1 };
  for (
    const command of [
      NBD_CMD.READ,
      NBD_CMD.WRITE,
      NBD_CMD.TRIM,
      NBD_CMD.CACHE,
      NBD_CMD.WRITE_ZEROES,
      NBD_CMD.BLOCK_STATUS,
    ]
  ) {
    assert.equal(judge(command, range), undefined);
    assert.equal(judge(command, { ...range, flags: NBD_CMD_FLAG.FUA }), undefined);
  }
  assert.equal(judge(NBD_CMD.FLUSH, {}), undefined);
  assert.equal(judge(NBD_CMD.READ, { length: MAX_PAYLOAD_BYTES }), undefined);
  assert.equal(judge(NBD_CMD.WRITE_ZEROES, { length: SIZE }), undefined);
});

Deno.test("each fault of a request has its error", () => {
  const { READ, WRITE, FLUSH, TRIM, WRITE_ZEROES, BLOCK_STATUS, CACHE } = NBD_CMD;
  const { NO_HOLE, DF, REQ_ONE, FAST_ZERO } = NBD_CMD_FLAG;
  const beyond = { offset: SIZE - 511, length: 512 };
  const wild = { offset: 2 ** 53 - 1, length: 512 };
  const tooMuch = { length: MAX_PAYLOAD_BYTES + 1 };
  const cases: [string, number | undefined, number][] = [
    ["unknown command", judge(8, { length: 512 }), EINVAL],
    ["unknown flag", judge(READ, { length: 512, flags: 1 << 5 }), EINVAL],
    ["NO_HOLE on a write", judge(WRITE, { length: 512, flags: NO_HOLE }), EINVAL],
    ["FAST_ZERO on a trim", judge(TRIM, { length: 512, flags: FAST_ZERO }), EINVAL],
    ["REQ_ONE on a read", judge(READ, { length: 512, flags: REQ_ONE }), EINVAL],
    ["DF on simple replies", judge(READ, { length: 512, flags: DF }, {}, false), EINVAL],
    ["status without context", judge(BLOCK_STATUS, { length: 512 }, {}, false), EINVAL],
    ["flush with a range", judge(FLUSH, { length: 512 }), EINVAL],
    ["nothing", judge(READ, {}), EINVAL],
    ["read beyond", judge(READ, beyond), EINVAL],
    ["write beyond", judge(WRITE, beyond), ENOSPC],
    ["zeroes beyond", judge(WRITE_ZEROES, beyond), ENOSPC],
    ["trim beyond", judge(TRIM, beyond), EINVAL],
    ["status beyond", judge(BLOCK_STATUS, beyond), EINVAL],
    ["cache beyond", judge(CACHE, beyond), EINVAL],
    ["write far beyond", judge(WRITE, wild), ENOSPC],
    ["read too long", judge(READ, tooMuch), EINVAL],
    ["write too long", judge(WRITE, tooMuch), EINVAL],
    ["write", judge(WRITE, { length: 512 }, { readOnly: true }), EPERM],
    ["trim", judge(TRIM, { length: 512 }, { readOnly: true }), EPERM],
    ["zeroes", judge(WRITE_ZEROES, { length: 512 }, { readOnly: true }), EPERM],
    ["offset", judge(READ, { offset: 1, length: 512 }, { minimumBlockBytes: 512 }), EINVAL],
    ["length", judge(WRITE, { length: 513 }, { minimumBlockBytes: 512 }), EINVAL],
  ];
  for (const [what, found, expected] of cases) assert.equal(found, expected, what);
});
