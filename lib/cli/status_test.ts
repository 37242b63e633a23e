import assert from "node:assert/strict";
import { runKemari, spawnKemari } from "../lab/program/run_kemari.ts";

const LATENCY = { count: 40, p50: 1.234, p99: 12.34, max: 100 };

const SENDER = {
  role: "sender",
  state: "synchronizing",
  mode: "colo",
  peer: "secondary:4000",
  lastCommitted: 41,
  lastCommittedAgeMs: 2.6,
  syncs: 41,
  syncsPerSecond: 350.04,
  pages: 1000,
  zeroPages: 20,
  payloadBytes: 5 * 2 ** 20,
  wireBytes: 3 * 2 ** 30,
  unchangedPages: 7,
  compression: {
    mode: "delta",
    streamBytes: 40 * 2 ** 20,
    deltaPages: 900,
    packedFromBytes: 6_000_000,
    packedToBytes: 2 * 2 ** 20,
    packingMs: 12,
    cacheBytes: 30 * 2 ** 20,
    cacheLimitBytes: 2 ** 28,
    cacheHits: 907,
    cacheMisses: 100,
    cacheEvictions: 0,
    settling: LATENCY,
  },
  pause: LATENCY,
  receiving: LATENCY,
  roundTrip: { count: 0, p50: 0, p99: 0, max: 0 },
  inFlight: 2,
  pendingBytes: 4096,
  sent: { pages: 4 * 2 ** 20, deviceState: 2 ** 20, events: 0, framing: 3000 },
};

const RECEIVER = {
  role: "receiver",
  state: "waiting",
  machine: "pc-i440fx-11.1",
  sender: "kemari 0.1.0",
  lastCommitted: 41,
  lastCommittedAgeMs: 65_432,
  syncs: 41,
  syncsPerSecond: 0,
  pages: 1000,
  zeroPages: 20,
  payloadBytes: 0,
  wireBytes: 0,
  replicaBytes: 2 ** 26,
  vm: null,
  arriving: false,
  unreleased: 0,
  longestSilenceMs: null,
  pendingWrites: 0,
  incompleteDisks: [],
  applying: LATENCY,
  lastLoss: "the primary is silent",
};

/** Answers every request on a control socket; notes what was asked. */
async function withControl(
  answer: (round: number) => string,
  body: (socket: string, asked: string[]) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-status-" });
  const path = `${folder}/ctl`;
  const listener = Deno.listen({ transport: "unix", path });
  const asked: string[] = [];
  const serving = (async () => {
    for await (const connection of listener) {
      const buffer = new Uint8Array(4096);
      const count = await connection.read(buffer) ?? 0;
      asked.push(new TextDecoder().decode(buffer.subarray(0, count)));
      await connection.write(new TextEncoder().encode(answer(asked.length)));
      connection.close();
    }
  })();
  try {
    await body(path, asked);
  } finally {
    listener.close();
    await serving;
    await Deno.remove(folder, { recursive: true });
  }
}

const line = (value: unknown) => JSON.stringify(value) + "\n";

Deno.test("kemari status prints a sender as an aligned block with units", () =>
  withControl(() => line(SENDER), async (socket, asked) => {
    const { code, stdout, stderr } = await runKemari(["status", socket]);
    assert.deepEqual([code, stderr], [0, ""]);
    assert.deepEqual(asked.map((text) => JSON.parse(text)), [{ command: "status" }]);
    assert.deepEqual(stdout.split("\n"), [
      "sender         synchronizing (colo)",
      "peer           secondary:4000",
      "committed      transaction 41, 3 ms ago",
      "syncs          41, 350.0/s",
      "pages          1000 + 20 zero (7 unchanged, not sent)",
      "payload        5.0 MiB",
      "on the wire    3.0 GiB",
      "compression    delta",
      "  QEMU sent    40.0 MiB",
      "  delta pages  900",
      "  delta cache  30.0 MiB of 256 MiB, 907 hits, 100 misses",
      "  packed       5.7 MiB into 2.0 MiB, 0.50 GB/s",
      "  put off      p50 1.23 ms, p99 12.3 ms, max 100.0 ms",
      "pause          p50 1.23 ms, p99 12.3 ms, max 100.0 ms",
      "  QEMU sends   p50 1.23 ms, p99 12.3 ms, max 100.0 ms",
      "in flight      2 transactions, 4.0 KiB",
      "sent           4.0 MiB of pages, 1.0 MiB of device state, 0 B of events, 2.9 KiB of framing",
      "",
    ]);
  }));

Deno.test("kemari status names what is not held, last and in capitals", () => {
  const nic = {
    name: "web",
    model: "e1000",
    mac: "52:54:00:00:00:01",
    backends: [],
    text: "web (e1000, tap t0)",
  };
  const cases: [object, string[]][] = [
    [{ unheld: null, nics: [], drives: [], others: [] }, []],
    [{ unheld: "No NIC …", nics: [nic], drives: [], others: ["serial0"] }, [
      "NOT HELD       what the NICs send: none has a --net",
    ]],
    [{
      unheld: null,
      nics: [nic],
      drives: ["vdb"],
      others: ["serial0 (pty:/dev/pts/0)", "usb-host"],
    }, [
      "NOT HELD       what NIC web (e1000, tap t0) sends",
      "NOT HELD       writes to vdb",
      "not held       serial0 (pty:/dev/pts/0), usb-host",
    ]],
  ];
  const answer = (round: number) => line({ ...SENDER, outside: cases[round - 1][0] });
  return withControl(answer, async (socket) => {
    for (const [, expected] of cases) {
      const { stdout } = await runKemari(["status", socket]);
      assert.deepEqual(stdout.split("\n").filter((each) => /not held/i.test(each)), expected);
    }
  });
});

Deno.test("kemari status prints a receiver with what it holds and why it waits", () =>
  withControl(() => line(RECEIVER), async (socket) => {
    const { code, stdout } = await runKemari(["status", socket]);
    assert.equal(code, 0);
    assert.deepEqual(stdout.split("\n"), [
      "receiver     waiting",
      "machine      pc-i440fx-11.1",
      "sender       kemari 0.1.0",
      "committed    transaction 41, 65.4 s ago",
      "syncs        41, 0.0/s",
      "pages        1000 + 20 zero",
      "payload      0 B",
      "on the wire  0 B",
      "replica      64.0 MiB of pages",
      "applying     p50 1.23 ms, p99 12.3 ms, max 100.0 ms",
      "last loss    the primary is silent",
      "",
    ]);
  }));

Deno.test("kemari status of an end that has just begun prints what there is", () => {
  const early = { role: "sender", state: "connecting", peer: "h:1", syncs: 0 };
  return withControl(() => line(early), async (socket) => {
    const { code, stdout } = await runKemari(["status", socket]);
    assert.deepEqual([code, stdout], [0, "sender  connecting\npeer    h:1\n"]);
  });
});

Deno.test("kemari status --json prints the answer as it came", () =>
  withControl(() => line({ ...SENDER, later: [1] }), async (socket) => {
    const { code, stdout } = await runKemari(["status", "--json", socket]);
    assert.equal(code, 0);
    assert.deepEqual(JSON.parse(stdout), { ...SENDER, later: [1] });
  }));

Deno.test("kemari status --watch --json prints a line a second until the signal, then exits 130", () =>
  withControl((round) => line({ ...SENDER, syncs: round }), async (socket) => {
    const child = spawnKemari(["status", "--watch", "--json", socket]);
    await child.stdin.close();
    let text = "";
    for await (const piece of child.stdout.pipeThrough(new TextDecoderStream())) {
      text += piece;
      if (text.split("\n").length === 3) child.kill("SIGINT");
    }
    const { code } = await child.status;
    const stderr = await new Response(child.stderr).text();
    assert.equal(code, 130);
    assert.match(stderr, /^kemari: interrupted by SIGINT\n$/);
    const rounds = text.trimEnd().split("\n").map((each) => JSON.parse(each).syncs);
    assert.deepEqual(rounds, [1, 2]);
  }));

Deno.test("kemari status --watch ends with 4 when the end it watches does", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-status-" });
  const listener = Deno.listen({ transport: "unix", path: `${folder}/ctl` });
  const child = spawnKemari(["status", "--watch", `${folder}/ctl`]);
  await child.stdin.close();
  const connection = await listener.accept();
  await connection.read(new Uint8Array(4096));
  await connection.write(new TextEncoder().encode(line(SENDER)));
  connection.close();
  listener.close();
  const { code, stdout, stderr } = await child.output();
  assert.equal(code, 4);
  assert.match(new TextDecoder().decode(stdout), /^sender /);
  assert.match(new TextDecoder().decode(stderr), /there is no such control socket\nhint: /);
  await Deno.remove(folder, { recursive: true });
});

interface Refusal {
  readonly command: "status" | "failover";
  readonly answer: string;
  readonly code: number;
  readonly stderr: RegExp;
}

const REFUSALS: readonly Refusal[] = [
  { command: "status", answer: "{}\n", code: 3, stderr: /is no kemari status/ },
  { command: "status", answer: "null\n", code: 3, stderr: /is no kemari status/ },
  {
    command: "status",
    answer: line({ ...SENDER, pause: { ...LATENCY, p99: "12" } }),
    code: 3,
    stderr:
      /is no kemari status: pause\.p99 must be a number, and is "12" .*\nhint: name the socket/,
  },
  { command: "status", answer: "220 smtp ready\n", code: 3, stderr: /is not JSON/ },
  { command: "status", answer: '{"role":', code: 4, stderr: /the answer broke off/ },
  { command: "status", answer: '{"error":"busy"}\n', code: 4, stderr: /: busy\n$/ },
  { command: "failover", answer: "{}\n", code: 3, stderr: /is not kemari's/ },
  {
    command: "failover",
    answer: line({ error: "this end is a sender: it cannot take over", hint: "ask the other" }),
    code: 4,
    stderr: /: this end is a sender: it cannot take over\nhint: ask the other\n$/,
  },
];

for (const { command, answer, code, stderr } of REFUSALS) {
  Deno.test(`kemari ${command} answered ${answer.trim()} exits with ${code}`, () =>
    withControl(() => answer, async (socket) => {
      const ended = await runKemari([command, socket]);
      assert.deepEqual([ended.code, ended.stdout], [code, ""]);
      assert.match(ended.stderr, stderr);
    }));
}

Deno.test("kemari failover that is granted is silent", () =>
  withControl(() => '{"ok":true}\n', async (socket, asked) => {
    const { code, stdout, stderr } = await runKemari(["failover", socket]);
    assert.deepEqual([code, stdout, stderr], [0, "", ""]);
    assert.deepEqual(asked.map((text) => JSON.parse(text)), [{
      command: "failover",
      stale: false,
    }]);
  }));

for (const command of ["status", "failover"]) {
  Deno.test(`kemari ${command} where nobody listens exits with 4 and says what to do`, async () => {
    const { code, stdout, stderr } = await runKemari([command, "/nowhere/ctl"]);
    assert.deepEqual([code, stdout], [4, ""]);
    assert.match(
      stderr,
      /^kemari: \/nowhere\/ctl: there is no such control socket\nhint: start kemari with/,
    );
  });
}
