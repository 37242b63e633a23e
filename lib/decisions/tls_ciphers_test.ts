import assert from "node:assert/strict";
import { tlsCiphers } from "./tls_ciphers.ts";

const CASES = [
  {
    cpu: "x86-64 with AES-NI",
    info: "flags\t\t: fpu sse2 aes pclmulqdq avx2\n",
    first: /^TLS_AES/,
  },
  { cpu: "x86-64 without", info: "flags\t\t: fpu sse2 pclmulqdq\n", first: /^TLS_CHACHA20/ },
  { cpu: "x86-64 with AES alone", info: "flags\t\t: fpu sse2 aes\n", first: /^TLS_CHACHA20/ },
  { cpu: "aarch64 with AES", info: "Features\t: fp asimd aes pmull sha1\n", first: /^TLS_AES/ },
  { cpu: "aarch64 without", info: "Features\t: fp asimd crc32\n", first: /^TLS_CHACHA20/ },
  {
    cpu: "a name that sounds like AES",
    info: "model name : aes pclmulqdq\n",
    first: /^TLS_CHACHA/,
  },
  { cpu: "nothing known", info: "", first: /^TLS_CHACHA20/ },
] as const;

for (const { cpu, info, first } of CASES) {
  Deno.test(`the first cipher on ${cpu}; the other one can be had as well`, () => {
    assert.match(tlsCiphers(info), first);
    assert.equal(tlsCiphers(info).split(":").length, 2);
  });
}
