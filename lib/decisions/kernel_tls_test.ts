import assert from "node:assert/strict";
import { kernelVersion, mayAskForKernelTls } from "./kernel_tls.ts";

const CASES = [
  { kernel: "6.1.0-28-amd64", openssl: [3, 0], asks: false },
  { kernel: "6.12.9", openssl: [3, 5], asks: false },
  { kernel: "6.14.0-rc1", openssl: [3, 1], asks: false },
  { kernel: "6.14.0-rc1", openssl: [3, 2], asks: true },
  { kernel: "6.18.44", openssl: [3, 5], asks: true },
  { kernel: "7.0.1", openssl: [4, 0], asks: true },
  { kernel: "unknown", openssl: [3, 5], asks: false },
] as const;

for (const { kernel, openssl, asks } of CASES) {
  Deno.test(`kernel ${kernel} with OpenSSL ${openssl.join(".")}: kTLS ${asks ? "" : "not "}asked for`, () => {
    assert.equal(mayAskForKernelTls(kernelVersion(kernel), openssl), asks);
  });
}
