/** A sender's way to its receiver by ssh. */
import { randomBytes } from "node:crypto";
import { getLogger } from "@logtape/logtape";
import { AttachAsker, MAX_ATTACH_LINE_BYTES } from "../../control/attach_lines.ts";
import type { AttachPlace, AttachRequest } from "../../control/attach_request.ts";
import { dialAddress } from "../../decisions/dial_address.ts";
import { TransportError } from "../../errors.ts";
import { foreignText } from "../../foreign_text.ts";
import { NEW_KEY_BYTES, type PresharedKey } from "../../keys/psk_file.ts";
import { OutputQueue, readSome } from "../system/channel.ts";
import { libc } from "../system/libc.ts";
import type { Reactor } from "../system/reactor.ts";
import { connectSocket } from "../system/socket.ts";
import type { SshAddress } from "../system/ssh_address.ts";
import { PlainTransport, type Transport } from "../system/transport.ts";
import { sessionTransport } from "../tls/session_transport.ts";
import { attachCommand, configCommand, decodeSshConfig, type SshConfig } from "./ssh_command.ts";
import { SSH_FAILED, sshFailure, type SshFailureWords } from "./ssh_failure.ts";
import { SshProcess } from "./ssh_process.ts";

const log = getLogger(["kemari", "ssh"]);

/**
 * How long a login may take, until kemari has answered there, in milliseconds: with slow name
 * servers, and, at a terminal, with time to type a password.
 */
const LOGIN_MS = { alone: 30_000, atTerminal: 120_000 };
/** How long ssh may take to print its configuration, for which it may look up names. */
const CONFIG_MS = 5000;
const NO_SUCH_COMMAND = 127;
/** Lines of stderr that are logged while a session goes through ssh: the other host may say anything. */
const MOST_TOLD = 100;

/** Parts of the connection. */
export interface SshConnection {
  readonly transport: Transport;
  /** The ssh that the session goes through, if any. */
  readonly command?: {
    readonly exitCode: Promise<number>;
    kill(): void;
    /** Why the session has ended, if ssh has ended with this exit code. */
    explain(code: number): SshFailureWords;
  };
}

export interface SshConnectOptions {
  /** How long a connection to the receiver's own port may take. */
  readonly timeoutMs: number;
  /** How long the login may take; by default as suits the terminal. */
  readonly loginMs?: number;
  /** Whether a receiver may be started if none is found. */
  readonly starts?: boolean;
}

/**
 * Logs in by ssh, asks a running `kemari recv` to let us in, and connects.
 *
 * ```text
 * ssh -G ──► ssh HOST kemari attach PATH ──greets──► asked ──► over ssh: the session goes on here
 *                                                        └───► direct: ssh ends, TLS to recv's port
 * ```
 *
 * The key of a direct connection is made here for this session only, and sent only over ssh's
 * stdin.
 *
 * @throws {TransportError} The connection has failed; no ssh process is left running.
 */
export async function connectBySsh(
  address: SshAddress,
  reactor: Reactor,
  signal: AbortSignal,
  { timeoutMs, loginMs = loginTime(), starts = true }: SshConnectOptions,
): Promise<SshConnection> {
  const { overSsh } = address.options;
  const config = await reactor.during(readConfig(address, signal), signal);
  const key = overSsh ? undefined : newKey();
  const starting = SshProcess.start(attachCommand(address, config, starts), address.text);
  const ssh = await reactor.during(starting, signal);
  let place: AttachPlace | undefined;
  try {
    place = await attach(ssh, address, key, reactor, signal, loginMs);
    for (const line of ssh.lines) tell(address, line);
    if (key !== undefined) await reactor.during(ssh.end(), signal);
  } catch (error) {
    ssh.kill();
    throw error;
  }
  if (key === undefined) return goOnOverSsh(ssh, address);
  return { transport: await dial(address, config, place!, key, reactor, timeoutMs, signal) };
}

/** Progress of a login. */
type LoginState =
  | { readonly at: "talking" }
  | { readonly at: "attached"; readonly place: AttachPlace | undefined }
  | { readonly at: "ended" }
  | { readonly at: "late" };

/**
 * Asks the receiver to let us in.
 *
 * @param key For a direct connection; without it, the session stays in ssh.
 * @returns The address for the direct connection with the key.
 */
async function attach(
  ssh: SshProcess,
  address: SshAddress,
  key: PresharedKey | undefined,
  reactor: Reactor,
  signal: AbortSignal,
  loginMs: number,
): Promise<AttachPlace | undefined> {
  const asker = new AttachAsker(address.text, requestWith(key));
  const { input, output } = ssh.descriptors;
  const buffer = new Uint8Array(MAX_ATTACH_LINE_BYTES);
  const said = new OutputQueue(output, address.text, "peer");
  const login = { state: { at: "talking" } as LoginState };
  const watch = reactor.watch(input, {
    readable: () => {
      const count = readSome(input, buffer, address.text, "peer");
      if (count === undefined) return;
      if (count === 0) return void (login.state = { at: "ended" });
      const step = asker.receive(buffer.subarray(0, count));
      if (step?.do === "begin") login.state = { at: "attached", place: step.place };
      if (step?.do !== "say") return;
      said.push([new TextEncoder().encode(step.line)]);
      // An empty pipe takes a whole line.
      said.flush();
    },
  });
  watch.want(true, false);
  const cancel = reactor.after(loginMs, () => login.state = { at: "late" });
  try {
    await reactor.run(() => login.state.at !== "talking", signal);
  } finally {
    cancel();
    watch.stop();
  }
  switch (login.state.at) {
    case "attached":
      return login.state.place;
    case "late":
      throw tooLate(address, ssh.lines, loginMs);
    default: {
      const code = await reactor.during(ssh.end(), signal) ?? SSH_FAILED;
      const { lines } = ssh;
      const { unfinished: said, isGreeted } = asker;
      throw failed(address, sshFailure({ login: loginOf(address), code, lines, said, isGreeted }));
    }
  }
}

function requestWith(key: PresharedKey | undefined): AttachRequest {
  if (key === undefined) return { way: "over-ssh" };
  return { way: "direct", identity: key.identity, key: hexOf(key.key) };
}

function newKey(): PresharedKey {
  const identity = `session-${hexOf(randomBytes(8))}`;
  return { identity, key: new Uint8Array(randomBytes(NEW_KEY_BYTES)) };
}

function hexOf(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function goOnOverSsh(ssh: SshProcess, address: SshAddress): SshConnection {
  const name = `${address.text} (over ssh)`;
  let lines = 0;
  ssh.onLine = (line) => {
    if (++lines <= MOST_TOLD) tell(address, line);
    if (lines === MOST_TOLD) tell(address, "what else ssh says in this session is not told");
  };
  return {
    transport: new PlainTransport({ ...ssh.descriptors, name }, "peer", { kind: "ssh" }),
    command: {
      exitCode: ssh.exitCode,
      kill: () => ssh.kill(),
      explain: (code) => {
        const { lines } = ssh;
        return sshFailure({ login: loginOf(address), code, lines, said: "", isGreeted: true });
      },
    },
  };
}

/** Connects to the receiver's address. */
async function dial(
  address: SshAddress,
  { hostname }: SshConfig,
  { host: bound, port }: AttachPlace,
  key: PresharedKey,
  reactor: Reactor,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<Transport> {
  const found = dialAddress(bound, hostname);
  if (found.answer === "unreachable") {
    throw failed(address, {
      message: `kemari recv listens at ${bound} there, which only its own host can reach`,
      hint: "have it listen at an address of a network, or use --over-ssh",
    });
  }
  const { host } = found;
  const text = `${host.includes(":") ? `[${host}]` : host}:${port}`;
  const tcp = { kind: "tcp", host, port, text } as const;
  let fd: number;
  try {
    fd = await connectSocket(tcp, reactor, timeoutMs, signal, "peer");
  } catch (error) {
    if (!(error instanceof TransportError) || error.party !== "peer") throw error;
    throw failed(address, {
      message: `kemari recv listens there, and cannot be reached from here: ${error.message}`,
      hint: "let its port through the firewall, have recv listen at an address that is reached " +
        "from here, or use --over-ssh",
    }, error);
  }
  const close = () => void libc().close(fd);
  const name = `${address.text} (${text})`;
  return sessionTransport({ input: fd, output: fd, name, isSocket: true, close }, key);
}

/** The ssh configuration for the host; only the host's name if ssh does not print it. */
async function readConfig(address: SshAddress, signal: AbortSignal): Promise<SshConfig> {
  const { destination, options } = address;
  const output = new Deno.Command("/bin/sh", {
    args: ["-c", configCommand(address)],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    signal: AbortSignal.any([signal, AbortSignal.timeout(CONFIG_MS)]),
  }).output();
  // ssh itself will report errors in its configuration, in its own words.
  const told = await output.catch(() => undefined);
  signal.throwIfAborted();
  if (told?.code === NO_SUCH_COMMAND) {
    const words = new TextDecoder().decode(told.stderr).trim();
    throw new TransportError(address.text, "spawn", `no ssh can be run here: ${words}`, {
      party: "user",
      hint: `install OpenSSH's client, or say with --ssh what it is called (now "${options.ssh}")`,
    });
  }
  return decodeSshConfig(told?.success ? new TextDecoder().decode(told.stdout) : "", destination);
}

/** The command by which a person would log in there. */
function loginOf({ destination, options }: SshAddress): string {
  return `${options.ssh} ${destination}`;
}

function tooLate(address: SshAddress, lines: readonly string[], loginMs: number): TransportError {
  const last = lines.at(-1);
  return failed(address, {
    message: `no answer by ssh in ${loginMs / 1000} s${last === undefined ? "" : `: ${last}`}`,
    hint: `look what this does: ${loginOf(address)} ${address.options.remoteKemari} --version; a ` +
      "password cannot be asked for without a terminal",
  });
}

function failed(address: SshAddress, { message, hint }: SshFailureWords, cause?: unknown) {
  return new TransportError(address.text, "connect", message, { party: "peer", hint, cause });
}

function tell({ text }: SshAddress, line: string): void {
  log.warn("{target}: {line}", { target: text, line: foreignText(line) });
}

function loginTime(): number {
  try {
    // The terminal at which ssh asks for a password.
    Deno.openSync("/dev/tty").close();
    return LOGIN_MS.atTerminal;
  } catch {
    return LOGIN_MS.alone;
  }
}
