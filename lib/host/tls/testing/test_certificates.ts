/** For tests: authorities and their certificates, made by the `openssl` command. */
import { output } from "../../../lab/program/lab_process.ts";
import { ensureTool } from "../../../lab/provision/tools.ts";
import { never } from "../../system/never.ts";

/** Properties of a certificate. */
export interface Wanted {
  readonly usage: "client" | "server";
  /** Its names and addresses: `DNS:a,IP:10.0.0.1`. */
  readonly names?: string;
  /** Days from now at which it begins and ends. */
  readonly fromDays?: number;
  readonly toDays?: number;
}

const DAY_MS = 24 * 3600 * 1000;

/** `YYYYMMDDHHMMSSZ`, some days from now. */
function daysFromNow(days: number): string {
  return new Date(Date.now() + days * DAY_MS).toISOString().replace(/\..*$/, "Z").replace(
    /[-:T]/g,
    "",
  );
}

/** A certificate authority in its own folder, which the caller removes. */
export class TestAuthority {
  #count = 0;

  private constructor(readonly folder: string, private readonly openssl: string) {}

  static async make(folder: string): Promise<TestAuthority> {
    const authority = new TestAuthority(folder, await ensureTool("openssl"));
    await Deno.mkdir(folder, { recursive: true });
    await Deno.writeTextFile(`${folder}/index.txt`, "");
    await Deno.writeTextFile(
      `${folder}/ca.cnf`,
      `[ca]
default_ca = own
[own]
database = ${folder}/index.txt
new_certs_dir = ${folder}
rand_serial = yes
default_md = sha256
unique_subject = no
policy = any
crlnumber = ${folder}/crlnumber
default_crl_days = 30
[any]
commonName = supplied
`,
    );
    await Deno.writeTextFile(`${folder}/crlnumber`, "01\n");
    await authority.#run(
      ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
      ...["-keyout", `${folder}/ca-key.pem`, "-out", authority.certificate, "-days", "90"],
      ...["-subj", "/CN=test authority", "-addext", "keyUsage=keyCertSign,cRLSign"],
    );
    return authority;
  }

  get certificate(): string {
    return `${this.folder}/ca-cert.pem`;
  }

  /**
   * Issues a certificate into a folder, with QEMU's file names, together with the authority's
   * certificate.
   *
   * @returns The folder.
   */
  async issue(
    folder: string,
    { usage, names = "DNS:localhost,IP:127.0.0.1", fromDays = -1, toDays = 60 }: Wanted,
  ): Promise<string> {
    await Deno.mkdir(folder, { recursive: true });
    const request = `${this.folder}/request-${++this.#count}`;
    await this.#run(
      ...["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
      ...["-keyout", `${folder}/${usage}-key.pem`, "-out", request, "-subj", `/CN=${usage}`],
    );
    await Deno.writeTextFile(
      `${request}.cnf`,
      `extendedKeyUsage=${usage}Auth\nsubjectAltName=${names}\n`,
    );
    await this.#run(
      ...["ca", "-batch", "-notext", "-config", `${this.folder}/ca.cnf`, "-in", request],
      ...["-keyfile", `${this.folder}/ca-key.pem`, "-cert", this.certificate],
      ...["-startdate", daysFromNow(fromDays), "-enddate", daysFromNow(toDays)],
      ...["-extfile", `${request}.cnf`, "-out", `${folder}/${usage}-cert.pem`],
    );
    await Deno.chmod(`${folder}/${usage}-key.pem`, 0o600);
    await Deno.copyFile(this.certificate, `${folder}/ca-cert.pem`);
    return folder;
  }

  /**
   * Revokes a certificate, and writes the revocation list into the folder of another certificate.
   */
  async revoke(certificate: string, into: string): Promise<void> {
    const own = ["-config", `${this.folder}/ca.cnf`, "-keyfile", `${this.folder}/ca-key.pem`]
      .concat("-cert", this.certificate);
    await this.#run("ca", ...own, "-revoke", certificate);
    await this.#run("ca", ...own, "-gencrl", "-out", `${into}/ca-crl.pem`);
  }

  async #run(...args: string[]): Promise<void> {
    await output(this.openssl, args, never);
  }
}
