import assert from "node:assert/strict";
import { judgeOutside } from "../../qmp/outside_output.ts";
import { runKemari, spawnKemari } from "../../lab/program/run_kemari.ts";
import type { HostCheck } from "../../host/doctor.ts";
import { probeCapabilities, type SupportReplies } from "../../qmp/migration_support.ts";
import { diagnose, type QemuFindings } from "./diagnosis.ts";
import { delay } from "../../host/system/delay.ts";

const GREETING = {
  QMP: { version: { qemu: { major: 11, minor: 1, micro: 3 } }, capabilities: [] },
};

/** What a running VM answers; commands not in it do not exist. */
const ANSWERS: Readonly<Record<string, unknown>> = {
  qmp_capabilities: {},
  "query-version": { qemu: { major: 11, minor: 1, micro: 3 }, package: "Debian" },
  "query-migrate-capabilities": [
    { capability: "x-colo", state: false },
    { capability: "return-path", state: false },
    { capability: "x-ignore-shared", state: false },
  ],
  "query-migrate-parameters": {},
  "query-kvm": { enabled: false, present: true },
  "query-migrate": {},
  "query-status": { status: "running", running: true },
  "query-block": [],
  "query-name": { name: "web1" },
  "query-cpus-fast": [{}, {}],
  "query-memory-size-summary": { "base-memory": 2 ** 29, "plugged-memory": 2 ** 28 },
  "qom-get type": "pc-q35-11.1-machine",
  "qom-get suppress-vmdesc": false,
};

/** A QMP server for one client after another. */
async function withQmp(
  answers: Readonly<Record<string, unknown>>,
  body: (socket: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-doctor-test-" });
  const path = `${folder}/qmp`;
  const listener = Deno.listen({ transport: "unix", path });
  const serving = (async () => {
    for await (const connection of listener) await serve(connection, answers);
  })();
  try {
    await body(path);
  } finally {
    listener.close();
    await serving;
    await Deno.remove(folder, { recursive: true });
  }
}

async function serve(connection: Deno.UnixConn, answers: Readonly<Record<string, unknown>>) {
  const writer = connection.writable.getWriter();
  const say = (object: unknown) => {
    return writer.write(new TextEncoder().encode(JSON.stringify(object) + "\r\n"));
  };
  try {
    await say(GREETING);
    let text = "";
    for await (const piece of connection.readable.pipeThrough(new TextDecoderStream())) {
      text += piece;
      for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
        const { id, execute, arguments: args } = JSON.parse(text.slice(0, end));
        text = text.slice(end + 1);
        const key = execute === "qom-get" ? `qom-get ${args.property}` : execute;
        await say(
          key in answers
            ? { return: answers[key], id }
            : { error: { class: "CommandNotFound", desc: `no ${key}` }, id },
        );
      }
    }
  } catch {
    // The client may go at any time.
  } finally {
    try {
      connection.close();
    } catch {
      // Its streams have closed it.
    }
  }
}

Deno.test("kemari doctor --qmp tells what the VM is and in which mode it can be protected", () =>
  withQmp(ANSWERS, async (socket) => {
    const { code, stdout, stderr } = await runKemari(["doctor", "--qmp", socket]);
    assert.deepEqual([code, stderr], [0, ""]);
    const [, vm] = stdout.split("\nVM\n");
    assert.deepEqual(vm.split("\n"), [
      `  socket        ${socket}`,
      "  name          web1",
      "  machine       pc-q35-11.1",
      "  vCPUs         2",
      "  memory        768 MiB",
      "  state         running",
      "  version       11.1.3 (Debian)",
      "  accelerator   tcg",
      "  COLO          yes: QEMU 11.1 keeps them up under tcg (measured)",
      "  warm standby  yes: QEMU 11.1 loads device state alone where its RAM is a shared file",
      "  return path   yes",
      "",
      "can be protected, mode colo",
      "  because: continuous checkpoints (COLO): QEMU 11.1 keeps them up under tcg (measured)",
      `  next: kemari protect TARGET --qmp ${socket}`,
      "",
    ]);
    assert.match(stdout, /^host\n {2}ok {7}system +linux \S+, glibc\n {2}\S+ +processors +\d+/);
    for (const name of ["memory", "/dev/shm", "/dev/kvm", "rights", "/dev/net/tun", "ip", "tc"]) {
      assert.match(stdout, new RegExp(`\n {2}(ok|missing) +${name} `), name);
    }
  }));

Deno.test("kemari doctor --json has the same content", () =>
  withQmp(ANSWERS, async (socket) => {
    const { code, stdout } = await runKemari(["doctor", "--json", "--qmp", socket]);
    assert.equal(code, 0);
    const report = JSON.parse(stdout);
    assert.deepEqual(Object.keys(report), [
      "host",
      "qemu",
      "vm",
      "protectable",
      "mode",
      "reason",
      "todo",
    ]);
    assert.deepEqual([report.qemu, report.protectable, report.mode], [null, true, "colo"]);
    assert.deepEqual([report.vm.cpus, report.vm.memoryBytes], [2, 3 * 2 ** 28]);
    assert.equal(report.vm.support.version.major, 11);
    for (const check of report.host) {
      assert.deepEqual(Object.keys(check).sort(), ["found", "name", "neededFor", "state"]);
    }
  }));

Deno.test("kemari doctor of a VM that cannot be protected exits with 5 and says why", () => {
  const blocked = {
    ...ANSWERS,
    "query-migrate": { "blocked-reasons": ["0000:00:04.0: VFIO migration is not supported"] },
    "query-migrate-parameters": { "tls-creds": "tls0" },
  };
  return withQmp(blocked, async (socket) => {
    const { code, stdout, stderr } = await runKemari(["doctor", "--qmp", socket]);
    assert.equal(code, 5);
    assert.match(
      stdout,
      /\n {2}blocker +Migration is blocked [^\n]*VFIO[^\n]*: remove that device/,
    );
    assert.match(stdout, /\n {2}blocker +The migration parameter tls-creds is set/);
    assert.match(stdout, /\ncannot be protected\n {2}because: /);
    assert.match(stderr, /^kemari: QEMU, doctor: Migration is blocked [^\n]*\nhint: [^\n]+\n$/);
  });
});

Deno.test("kemari doctor of a 7.2 under tcg names the snapshot loop and how to get COLO", () => {
  const old = { ...ANSWERS, "query-version": { qemu: { major: 7, minor: 2, micro: 22 } } };
  return withQmp(old, async (socket) => {
    const { code, stdout } = await runKemari(["doctor", "--qmp", socket]);
    assert.equal(code, 0);
    assert.match(stdout, /\ncan be protected, mode snapshot\n {2}because: [^\n]*hangs in COLO/);
    assert.match(
      stdout,
      /\n {2}next: for continuous checkpoints \(COLO\), run the VM under kvm, or on QEMU 11\.1/,
    );
  });
});

Deno.test("kemari doctor of a VM that does not run yet says that protect waits for it", () => {
  const early = { ...ANSWERS, "query-status": { status: "prelaunch", running: false } };
  return withQmp(early, async (socket) => {
    const { code, stdout } = await runKemari(["doctor", "--qmp", socket]);
    assert.equal(code, 0);
    assert.match(
      stdout,
      /\n {2}next: The VM stands still \(prelaunch\): it is protected once it runs/,
    );
  });
});

interface Refusal {
  readonly what: string;
  readonly args: readonly string[];
  readonly code: number;
  readonly stderr: RegExp;
}

const REFUSALS: readonly Refusal[] = [
  {
    what: "a QMP socket that is not there",
    args: ["--qmp", "/nowhere/qmp"],
    code: 4,
    stderr: /^kemari: \/nowhere\/qmp: there is no such socket\nhint: start QEMU with -qmp/,
  },
  {
    what: "a QEMU that is not there",
    args: ["--qemu", "/nowhere/qemu"],
    code: 4,
    stderr: /^kemari: \/nowhere\/qemu: there is no such program\nhint: /,
  },
  {
    what: "a program that is no QEMU",
    args: ["--qemu", "/bin/true"],
    code: 4,
    stderr: /^kemari: \/bin\/true: it ended with status 0 instead of answering\nhint: /,
  },
  {
    what: "a file that is no program",
    args: ["--qemu", "/etc/hostname"],
    code: 4,
    stderr: /^kemari: \/etc\/hostname: [^\n]+\nhint: /,
  },
];

for (const { what, args, code, stderr } of REFUSALS) {
  Deno.test(`kemari doctor of ${what} exits with ${code} and prints nothing`, async () => {
    const ended = await runKemari(["doctor", ...args]);
    assert.deepEqual([ended.code, ended.stdout], [code, ""]);
    assert.match(ended.stderr, stderr);
  });
}

/** A script for the time of a test; `body` also gets a folder of its own. */
async function withScript(
  script: string,
  body: (program: string, folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-doctor-test-" });
  try {
    const program = `${folder}/qemu`;
    await Deno.writeTextFile(program, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    await body(program, folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("kemari doctor passes on what a QEMU says that cannot start", () =>
  withScript("echo 'qemu: one'; echo 'qemu: no room' >&2; exit 7", async (program) => {
    const env = { KEMARI_QEMU: program };
    const { code, stdout, stderr } = await runKemari(["doctor"], { env });
    assert.deepEqual([code, stdout], [4, ""]);
    assert.match(stderr, /: it ended with status 7 instead of answering: qemu: no room\nhint: /);
  }));

Deno.test("kemari doctor interrupted leaves no QEMU and no folder behind", () =>
  withScript(`echo $$ > "\${0%/*}/pid"; exec sleep 60`, async (program, folder) => {
    const child = spawnKemari(["doctor", "--qemu", program], { TMPDIR: folder });
    await child.stdin.close();
    let pid = "";
    while (!pid.endsWith("\n")) {
      await delay(20);
      pid = await Deno.readTextFile(`${folder}/pid`).catch(() => "");
    }
    child.kill("SIGINT");
    const { code, stderr } = await child.output();
    assert.equal(code, 130);
    assert.match(new TextDecoder().decode(stderr), /interrupted by SIGINT/);
    await assert.rejects(Deno.stat(`/proc/${pid.trim()}`), Deno.errors.NotFound);
    const left = Array.from(Deno.readDirSync(folder), ({ name }) => name).sort();
    assert.deepEqual(left, ["pid", "qemu"]);
  }));

Deno.test("kemari doctor without any QEMU exits with 5 and says where to get one", () =>
  withScript("", async (_program, folder) => {
    const caches = Deno.env.get("XDG_CACHE_HOME") ?? `${Deno.env.get("HOME")}/.cache`;
    const env = {
      KEMARI_QEMU: "",
      PATH: folder,
      XDG_CACHE_HOME: folder,
      DENO_DIR: Deno.env.get("DENO_DIR") ?? `${caches}/deno`,
    };
    const { code, stdout, stderr } = await runKemari(["doctor"], { env });
    assert.equal(code, 5);
    assert.match(stdout, /\n {2}missing {2}ip +not on PATH \(needed for [^\n]+\)\n/);
    assert.match(stdout, /\ncannot be protected\n {2}because: no QEMU was found/);
    assert.match(stderr, /^kemari: QEMU, doctor: no QEMU was found on this host\nhint: install /);
  }));

const COLO_CAPABLE = [{ capability: "x-colo" }, { capability: "return-path" }];

/** A QEMU as the probe would report it. */
function qemu(major: number, accelerator: "kvm" | "tcg"): QemuFindings {
  const replies = (enabled: boolean): SupportReplies => ({
    version: { qemu: { major, minor: 2, micro: 0 } },
    capabilities: COLO_CAPABLE,
    kvm: { enabled },
  });
  const support = probeCapabilities(replies(accelerator === "kvm"));
  const { mode, reason } = probeCapabilities(replies(false));
  return { program: "/q", source: "PATH", support, underTcg: { mode, reason } };
}

const FINE: HostCheck = { name: "system", state: "ok", found: "linux", neededFor: "everything" };
const POOR: HostCheck = { name: "tc", state: "missing", found: "not on PATH", neededFor: "links" };
const UNFIT: HostCheck = { ...FINE, state: "fault", found: "no C library" };

const NO_TIMER = {
  inKernelPit: false,
  pit: "unknown",
  periodMs: undefined,
  warning: undefined,
} as const;

Deno.test("a diagnosis follows the host, then the VM, then the QEMU", () => {
  const told = (...args: Parameters<typeof diagnose>) => {
    const { protectable, mode, todo } = diagnose(...args);
    return [protectable, mode, todo.some((step) => /-accel kvm/.test(step))];
  };
  const vm = {
    socket: "/s",
    name: null,
    machine: null,
    cpus: null,
    memoryBytes: null,
    timer: NO_TIMER,
    outside: { unheld: null, nics: [], drives: [], others: [] },
  };
  const [modern, old] = [qemu(11, "tcg").support, qemu(7, "tcg").support];
  assert.deepEqual(told([FINE, POOR], qemu(11, "kvm"), undefined), [true, "colo", false]);
  assert.deepEqual(told([FINE], qemu(7, "kvm"), undefined), [true, "colo", true]);
  assert.deepEqual(told([FINE], qemu(7, "tcg"), undefined), [true, "snapshot", false]);
  assert.deepEqual(told([FINE], undefined, undefined), [false, null, false]);
  assert.deepEqual(told([UNFIT, FINE], qemu(11, "kvm"), undefined), [false, null, false]);
  assert.deepEqual(told([FINE], qemu(7, "kvm"), { ...vm, support: modern }), [true, "colo", false]);
  assert.deepEqual(told([FINE], qemu(11, "kvm"), { ...vm, support: old }), [
    true,
    "snapshot",
    false,
  ]);
  const outside = judgeOutside({
    network: "web: index=0,type=nic,model=e1000,macaddr=52:54:00:00:00:01\n" +
      " \\ t0: index=0,type=tap,ifname=tap0\n",
  });
  const { todo } = diagnose([FINE], undefined, { ...vm, support: modern, outside });
  assert.match(todo.join(), /No NIC of this VM goes through kemari/);
});
