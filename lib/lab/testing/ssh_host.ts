/** For tests: another host that is reached by ssh. It is this one, behind a real sshd. */
import { shellQuote } from "../../host/ssh/ssh_command.ts";
import { FROM_SOURCE_WORDS } from "../program/kemari_process.ts";
import { ensureTool } from "../provision/tools.ts";

/** How a host greets, and what is installed there. */
export interface SshHostOptions {
  /** Shell commands that run before whatever ssh is asked to run, as a login shell's files may have. */
  readonly before?: string;
  /** Whether there is a kemari on the search path there. */
  readonly hasKemari?: boolean;
}

/**
 * An sshd for each connection, on ssh's own stdin and stdout as inetd would start it: no port is
 * opened, and none is left behind. Host key, users' keys and all configuration are in a folder.
 */
export class SshHost implements AsyncDisposable {
  readonly folder: string;
  /** What --ssh is given. */
  readonly ssh: string;

  private constructor(folder: string, ssh: string) {
    this.folder = folder;
    this.ssh = `${ssh} -F ${folder}/ssh_config`;
  }

  static async open({ before = "", hasKemari = true }: SshHostOptions = {}): Promise<SshHost> {
    const [ssh, sshd, keygen] = await Promise.all(["ssh", "sshd", "ssh-keygen"].map(ensure));
    const folder = await Deno.makeTempDir({ prefix: "kemari-ssh-" });
    const host = new SshHost(folder, ssh);
    for (const name of ["host_key", "user_key", "other_key"]) {
      const args = ["-q", "-t", "ed25519", "-N", "", "-f", `${folder}/${name}`];
      await new Deno.Command(keygen, { args }).output();
    }
    await Deno.copyFile(`${folder}/user_key.pub`, `${folder}/authorized_keys`);
    await host.write("sshd_config", [
      `HostKey ${folder}/host_key`,
      `AuthorizedKeysFile ${folder}/authorized_keys`,
      "UsePAM no",
      "StrictModes no",
      "PidFile none",
      "PermitRootLogin yes",
      "PasswordAuthentication no",
      "KbdInteractiveAuthentication no",
      `ForceCommand ${folder}/command`,
    ]);
    await Deno.mkdir(`${folder}/bin`);
    if (hasKemari) {
      await host.script("bin/kemari", `${cacheOfDeno()}exec ${FROM_SOURCE_WORDS} "$@"`);
    }
    await host.script(
      "command",
      `export PATH=${folder}/bin:/usr/bin:/bin; ${before}\nexec /bin/sh -c "$SSH_ORIGINAL_COMMAND"`,
    );
    await host.script("sshd", await startOf(`${sshd} -i -e -f ${folder}/sshd_config`, folder));
    await host.write("sshd.log", []);
    await host.know("host_key");
    await host.configure();
    return host;
  }

  /** What sshd has said. */
  get log(): string {
    return Deno.readTextFileSync(`${this.folder}/sshd.log`);
  }

  /** Writes ssh's configuration of the host `far`, with these lines on top. */
  async configure(...lines: readonly string[]): Promise<void> {
    await this.write("ssh_config", [
      "Host far",
      ...lines,
      "HostName 127.0.0.1",
      "HostKeyAlias far",
      `ProxyCommand ${this.folder}/sshd 2>>${this.folder}/sshd.log`,
      `IdentityFile ${this.folder}/user_key`,
      "IdentitiesOnly yes",
      `UserKnownHostsFile ${this.folder}/known_hosts`,
      "GlobalKnownHostsFile /dev/null",
      "StrictHostKeyChecking yes",
      "BatchMode yes",
    ]);
  }

  /** Has users know the host by this key; by none if there is no such file. */
  async know(key: string): Promise<void> {
    const text = await Deno.readTextFile(`${this.folder}/${key}.pub`).catch(() => "");
    const [type, bytes] = text.split(" ");
    await this.write("known_hosts", bytes === undefined ? [] : [`far ${type} ${bytes}`]);
  }

  async write(name: string, lines: readonly string[]): Promise<void> {
    await Deno.writeTextFile(`${this.folder}/${name}`, lines.join("\n") + "\n");
    await Deno.chmod(`${this.folder}/${name}`, 0o600);
  }

  /** Makes a shell script. */
  async script(name: string, text: string): Promise<void> {
    await Deno.writeTextFile(`${this.folder}/${name}`, `#!/bin/sh\n${text}\n`);
    await Deno.chmod(`${this.folder}/${name}`, 0o755);
  }

  /** Processes that have this folder in their command lines: ssh, sshd, and what they run. */
  get processes(): string[] {
    return [...Deno.readDirSync("/proc")].flatMap(({ name }) => {
      if (!/^\d+$/.test(name)) return [];
      try {
        const line = Deno.readTextFileSync(`/proc/${name}/cmdline`).replaceAll("\0", " ");
        return line.includes(this.folder) ? [`${name} ${line}`] : [];
      } catch {
        return [];
      }
    });
  }

  /** Whatever a test that fails leaves running ends with its host. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const line of this.processes) {
      try {
        Deno.kill(Number(line.split(" ")[0]), "SIGKILL");
      } catch {
        // It has just ended.
      }
    }
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** Where the runtime finds its packages, which a login does not hand on. */
function cacheOfDeno(): string {
  return ["DENO_DIR", "XDG_CACHE_HOME"].flatMap((name) => {
    const value = Deno.env.get(name);
    return value === undefined ? [] : [`export ${name}=${shellQuote(value)}; `];
  }).join("");
}

function ensure(tool: string): Promise<string> {
  return ensureTool(tool);
}

/**
 * How sshd is started: root's wants a user and a folder of its own, which are made in a mount
 * namespace that goes with it.
 */
async function startOf(sshd: string, folder: string): Promise<string> {
  if (Deno.uid() !== 0) return `exec ${sshd}`;
  const users = await Deno.readTextFile("/etc/passwd");
  await Deno.writeTextFile(
    `${folder}/passwd`,
    users.replace(/^sshd:.*\n/m, "") + "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n",
  );
  const steps = [
    `mount --bind ${folder}/passwd /etc/passwd`,
    "mount -t tmpfs tmpfs /run",
    "mkdir -m 755 /run/sshd",
    `exec ${sshd}`,
  ];
  return `exec unshare -m /bin/sh -c ${shellQuote(steps.join(" && "))}`;
}
