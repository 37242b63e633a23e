import { getLogger } from "@logtape/logtape";
import { certificateAge } from "../../decisions/certificate_age.ts";
import { TransportError } from "../../errors.ts";
import { cString } from "../system/libc.ts";
import { libssl, takeTlsError } from "./libssl.ts";
import { checkFile } from "./private_file.ts";
import type { CertificateFiles, TlsRole } from "./tls_context.ts";

const log = getLogger(["kemari", "tls"]);

const DAY_S = 24 * 3600;

/**
 * The files of an end in a folder of certificates, by the names that QEMU and libvirt give them.
 *
 * @see QEMU docs/system/tls.rst
 */
export function certificateFiles(folder: string, role: TlsRole): CertificateFiles {
  const end = role === "sender" ? "client" : "server";
  const crl = `${folder}/ca-crl.pem`;
  return {
    ca: `${folder}/ca-cert.pem`,
    certificate: `${folder}/${end}-cert.pem`,
    key: `${folder}/${end}-key.pem`,
    ...(exists(crl) ? { crl } : {}),
  };
}

/**
 * Checks the files before OpenSSL reads them, and warns if a certificate expires soon.
 *
 * @throws {TransportError} A file is missing, or not secret, or not valid now.
 */
export function checkCertificates({ ca, certificate, key, crl }: CertificateFiles): void {
  for (const path of [ca, certificate, ...crl === undefined ? [] : [crl]]) checkFile(path, false);
  checkFile(key, true);
  for (const path of [ca, certificate]) checkAge(path);
}

function checkAge(path: string): void {
  const { begunS, leftS } = ageOf(path);
  const fail = (message: string, hint: string): never => {
    throw new TransportError(path, "read", message, { party: "user", hint });
  };
  const daysAgo = `${Math.ceil(-leftS / DAY_S)} days ago`;
  switch (certificateAge(begunS, leftS)) {
    case "expired":
      return fail(`this certificate has expired, ${daysAgo} at the most`, "put a new one there");
    case "not-yet-valid":
      return fail("this certificate is not yet valid", "is this host's clock right?");
    case "ends-soon":
      log.warn("{path}: this certificate expires in {days} days: put a new one there", {
        path,
        days: Math.floor(leftS / DAY_S),
      });
  }
}

/** Seconds since the start of a certificate's validity, and until its end. */
function ageOf(path: string): { begunS: number; leftS: number } {
  const { crypto } = libssl();
  const file = crypto.BIO_new_file(cString(path), cString("r"));
  const certificate = file === null ? null : crypto.PEM_read_bio_X509(file, null, null, null);
  if (file !== null) crypto.BIO_free(file);
  if (certificate === null) {
    const why = takeTlsError()?.text ?? "unknown format";
    throw new TransportError(path, "read", `this is no certificate: ${why}`, {
      party: "user",
      hint: "the file has to be PEM",
    });
  }
  const left = new Int32Array(2);
  const difference = (to: Deno.PointerValue) => {
    const [days, seconds] = [left.subarray(0, 1), left.subarray(1, 2)];
    crypto.ASN1_TIME_diff(days, seconds, null, to);
    return left[0] * DAY_S + left[1];
  };
  const begunS = -difference(crypto.X509_get0_notBefore(certificate));
  const leftS = difference(crypto.X509_get0_notAfter(certificate));
  crypto.X509_free(certificate);
  return { begunS, leftS };
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
