/** Connecting by programs that take ssh's place. */
import assert from "node:assert/strict";
import { configure, type LogRecord, reset } from "@logtape/logtape";
import { encodeGreeting } from "../../control/attach_lines.ts";
import { TransportError } from "../../errors.ts";
import { until } from "../../lab/program/until.ts";
import { never } from "../system/never.ts";
import { Reactor } from "../system/reactor.ts";
import { DEFAULT_SSH, parseSshAddress, type SshOptions } from "../system/ssh_address.ts";
import { connectBySsh, type SshConnectOptions } from "./connect_by_ssh.ts";

const GREET = `echo '${encodeGreeting("kemari 0.1.0").trim()}'; read -r line`;

/** A reactor, and a program that is run as ssh. */
class Stage implements AsyncDisposable {
  readonly reactor = new Reactor();
  readonly lines: string[] = [];
  readonly folder = Deno.makeTempDirSync({ prefix: "kemari-ssh-test-" });

  /** @param script What it does after it has told its configuration: `hostname 127.0.0.1`. */
  static async open(script: string, config = "echo hostname 127.0.0.1"): Promise<Stage> {
    const stage = new Stage();
    Deno.writeTextFileSync(
      stage.ssh,
      `#!/bin/sh\necho "$$" >>${stage.folder}/pids\ncase "$1" in -G) ${config}; exit ;; esac\n${script}\n`,
      { mode: 0o755 },
    );
    const sink = ({ level, message }: LogRecord) =>
      void stage.lines.push(`${level}: ${message.join("")}`);
    await configure({
      reset: true,
      sinks: { sink },
      loggers: [
        { category: "kemari", lowestLevel: "debug", sinks: ["sink"] },
        { category: ["logtape", "meta"], lowestLevel: "fatal", sinks: ["sink"] },
      ],
    });
    return stage;
  }

  get ssh(): string {
    return `${this.folder}/ssh`;
  }

  connect(
    options: Partial<SshOptions> = {},
    { signal = never, ...rest }: Partial<SshConnectOptions> & { signal?: AbortSignal } = {},
  ) {
    const address = parseSshAddress("ssh:far", { ...DEFAULT_SSH, ssh: this.ssh, ...options });
    return connectBySsh(address, this.reactor, signal, { timeoutMs: 1000, ...rest });
  }

  /** The error of a connection that does not come about. */
  async fail(...how: Parameters<Stage["connect"]>): Promise<TransportError> {
    try {
      await this.connect(...how);
    } catch (error) {
      assert.ok(error instanceof TransportError, `${error}`);
      assert.deepEqual([error.exitCode, error.hint === undefined], [4, false]);
      return error;
    }
    assert.fail("it connected");
  }

  /** Processes that have been started as ssh, and still run. */
  get running(): string[] {
    const pids = Deno.readTextFileSync(`${this.folder}/pids`).trim().split("\n");
    return pids.filter((pid) => {
      try {
        return !/^State:\s+Z/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
      } catch {
        return false;
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await until(() => this.running.length === 0, "a process is left", { limitMs: 5000 });
    this.reactor.close();
    await reset();
    await Deno.remove(this.folder, { recursive: true });
  }
}

Deno.test("a login that takes too long is given up, with the last that ssh has said", async () => {
  await using stage = await Stage.open("echo waiting for the moon >&2; exec sleep 1000");
  const error = await stage.fail({}, { loginMs: 500 });
  assert.equal(error.message, "ssh:far: no answer by ssh in 0.5 s: waiting for the moon");
  assert.match(error.hint!, /without a terminal/);
});

Deno.test("a far end that answers nothing is given up in the same time", async () => {
  await using stage = await Stage.open(`${GREET}; exec sleep 1000`);
  assert.match((await stage.fail({}, { loginMs: 500 })).message, /no answer by ssh in 0\.5 s$/);
});

Deno.test("an interruption ends ssh, which ignores the terminal's keys and the end of its service", async () => {
  await using stage = await Stage.open(
    `kill -INT $$; kill -TERM $$; kill -HUP $$; : >"$0.lives"; exec sleep 1000`,
  );
  const interrupted = new AbortController();
  const connecting = stage.connect({}, { signal: interrupted.signal });
  connecting.catch(() => {});
  await until(
    () => [...Deno.readDirSync(stage.folder)].some(({ name }) => name === "ssh.lives"),
    "ssh",
    {
      limitMs: 10_000,
    },
  );
  interrupted.abort(new Error("enough"));
  await assert.rejects(connecting, /enough/);
});

Deno.test("what ssh says is told when it has logged in, and part of the error when it has not", async () => {
  const said = `printf 'Warning: \\033[31mred\\nand more' >&2`;
  {
    await using stage = await Stage.open(`${GREET}; ${said}; echo '{"ok":true}'; exec cat`);
    const { transport } = await stage.connect({ overSsh: true });
    await until(() => stage.lines.length > 0, "a line");
    assert.equal(stage.lines[0], "warning: ssh:far: Warning: \\u{1b}[31mred");
    transport.close();
  }
  {
    await using stage = await Stage.open(`${said}; exit 255`);
    const error = await stage.fail();
    assert.equal(error.message, "ssh:far: ssh cannot log in: and more");
    assert.deepEqual(stage.lines, []);
  }
});

Deno.test("an ssh that says more and more while it is used fills no log", async () => {
  const flood = "i=0; while [ $i -lt 150 ]; do echo line $i >&2; i=$((i+1)); done; exec cat";
  await using stage = await Stage.open(`${GREET}; echo '{"ok":true}'; read -r go; ${flood}`);
  const { transport } = await stage.connect({ overSsh: true });
  transport.push([new TextEncoder().encode("go\n")]);
  transport.flush();
  await until(() => stage.lines.length > 100, "its lines");
  assert.match(stage.lines[0], /ssh:far: line 0$/);
  assert.match(stage.lines[100], /what else ssh says in this session is not told$/);
  assert.equal(stage.lines.length, 101);
  transport.close();
});

Deno.test("a session over ssh is what goes through it; its end is ssh's, and ssh's end is told", async () => {
  await using stage = await Stage.open(`${GREET}; echo '{"ok":true}'; head -c 5; exit 7`);
  const { transport, command } = await stage.connect({ overSsh: true });
  assert.match(transport.name, /ssh:far/);
  assert.equal(transport.isSocket, false);
  transport.push([new TextEncoder().encode("HELLO")]);
  assert.ok(transport.flush());
  const heard: number[] = [];
  let hasEnded = false;
  const buffer = new Uint8Array(16);
  const watch = transport.watch(stage.reactor, {
    readable: () => {
      const count = transport.read(buffer);
      if (count === 0) hasEnded = true;
      else if (count !== undefined) heard.push(...buffer.subarray(0, count));
    },
  });
  watch.want(true, false);
  await stage.reactor.run(() => hasEnded, never);
  assert.equal(new TextDecoder().decode(Uint8Array.from(heard)), "HELLO");
  const code = await command!.exitCode;
  assert.equal(code, 7);
  assert.match(command!.explain(code).message, /kemari ended there, with exit code 7/);
  assert.match(command!.explain(255).message, /ssh has lost its connection/);
  watch.stop();
  transport.close();
  transport.close();
});

Deno.test("a connection that is closed takes its ssh with it, however deaf that is", async () => {
  await using stage = await Stage.open(`${GREET}; echo '{"ok":true}'; exec sleep 1000 0<&-`);
  const { transport } = await stage.connect({ overSsh: true });
  assert.equal(stage.running.length, 1);
  transport.close();
});

Deno.test("a receiver that cannot be reached where it listens is told from one that is not there", async () => {
  const listening = (host: string) => `${GREET}; echo '{"ok":true,"host":"${host}","port":1}'`;
  {
    await using stage = await Stage.open(listening("0.0.0.0"));
    const error = await stage.fail();
    assert.match(error.message, /listens there, and cannot be reached from here: 127\.0\.0\.1:1: /);
    assert.match(error.hint!, /firewall.*--over-ssh/);
  }
  {
    await using stage = await Stage.open(listening("127.0.0.1"), "echo hostname far.example");
    const error = await stage.fail();
    assert.match(error.message, /listens at 127\.0\.0\.1 there, which only its own host can reach/);
  }
});

Deno.test("a far end that answers what it was not asked is refused", async () => {
  for (
    const [answer, message] of [
      ["yes", /does not answer as it should: it is not JSON/],
      [`{"ok":true}`, /does not answer as it should: host must be/],
      [`{"error":"busy","hint":"wait"}`, /refused there: busy/],
    ] as const
  ) {
    await using stage = await Stage.open(`${GREET}; echo '${answer}'; exec sleep 1000`);
    assert.match((await stage.fail()).message, message);
  }
});

Deno.test("a configuration that cannot be read leaves ssh to say so", async () => {
  await using stage = await Stage.open(
    `echo "Bad owner or permissions on /root/.ssh/config" >&2; exit 255`,
    "exit 255",
  );
  const error = await stage.fail();
  assert.match(error.message, /ssh cannot log in: Bad owner or permissions/);
  assert.match(error.hint!, /mend ssh's own configuration/);
});
