/** A `kemari send` whose secondary gives it up, or takes its VM: what becomes of QEMU and of the taps. */
import assert from "node:assert/strict";
import { InterruptedError, WireError } from "../errors.ts";
import { until } from "../lab/program/until.ts";
import { encodeFrameHeader, FRAME_HEADER_BYTES } from "../packet/stream_frame.ts";
import { concat, fullStream } from "../qemu/testing/synthetic_stream.ts";
import type { NackReason } from "../txn/wire.ts";
import { ToldSecondary } from "./link/testing/told_secondary.ts";
import { parseDiskTap } from "./disk/disk_tap_address.ts";
import { parseNetTap } from "./net/net_tap_address.ts";
import type { SendEnds } from "./send_ends.ts";
import type { SendSettings } from "./send_settings.ts";
import { Sending } from "./sending.ts";
import { delay } from "./system/delay.ts";
import { libc } from "./system/libc.ts";
import { O_CLOEXEC, O_NONBLOCK } from "./system/linux.ts";
import { never } from "./system/never.ts";
import { PrimaryTapDevices } from "./taps/primary_tap_devices.ts";
import type { TapSettings } from "./taps/tap_settings.ts";
import { LinkGuard } from "./tls/link_guard.ts";
import { FakeMonitor } from "./vm/testing/fake_monitor.ts";

/** What QEMU's own timer was set to by the operator, and is set to by us. */
const [OPERATORS_MS, OURS_MS] = [100, 700];
const FRAME_BYTES = 60;

/** What is done. */
const STOPS = "the taps know that the VM stops";
const STOPPED = "QEMU stops the VM";
const ENDED = "the connection ends";

/** A frame as QEMU's `-netdev stream` has it. */
function frame(fill: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(FRAME_HEADER_BYTES + FRAME_BYTES).fill(fill);
  encodeFrameHeader(bytes, 0, FRAME_BYTES);
  return bytes;
}

/** A `kemari send` to a Unix socket, that has none of this process' own descriptors. */
function sendingTo(
  path: string,
  { taps, qmp }: Pick<SendSettings, "taps" | "qmp">,
  ends: Pick<SendEnds, "input" | "openTaps">,
  signal = never,
): Sending {
  const settings: SendSettings = {
    target: "the socket",
    security: { kind: "plain", crossesNetworks: false },
    commit: "async",
    stream: "auto",
    maxInFlightBytes: 2 ** 26,
    heartbeatMs: 200,
    graceMs: 60_000,
    compress: "none",
    deltaCacheBytes: 0,
    qmp,
    taps,
    syncOn: ["net"],
    syncMinIntervalMs: 0,
    syncIntervalMs: OURS_MS,
  };
  const target = { kind: "unix", path, text: "the socket" } as const;
  const guard = LinkGuard.open(settings.security, "sender", target);
  const progress = { isShown: false, set: () => {} };
  const output = { fd: -1, release: () => {} };
  return new Sending(settings, target, guard, progress, signal, { ...ends, output });
}

/** The VM, with the world behind its NIC, its QEMU's monitor, and its secondary. */
class Scene implements AsyncDisposable {
  /** What was done, in order. */
  readonly done: string[] = [];
  readonly secondary: ToldSecondary;
  readonly monitor: FakeMonitor;
  readonly sending: Sending;
  /** What the guest has sent out. */
  heard: Uint8Array = new Uint8Array(0);
  readonly #world: Deno.Listener;
  readonly #stream: number;

  private constructor(readonly folder: string) {
    const at = (name: string) => `${folder}/${name}`;
    this.secondary = new ToldSecondary(at("secondary"));
    void this.secondary.ended.then(() => this.done.push(ENDED), () => {});
    this.monitor = FakeMonitor.open(at("qmp"));
    this.monitor.onStopped = () => void this.done.push(STOPPED);
    this.#world = Deno.listen({ transport: "unix", path: at("world") });
    void this.#listen();
    const pipe = new Int32Array(2);
    libc().pipe2(new Uint8Array(pipe.buffer), O_NONBLOCK | O_CLOEXEC);
    this.#stream = pipe[1];
    const taps: TapSettings = {
      nets: [parseNetTap(`n=unix:${at("nic")},unix:${at("world")}`)],
      disks: [],
      diskSync: "full",
    };
    this.sending = sendingTo(at("secondary"), { taps, qmp: at("qmp") }, {
      input: { fd: pipe[0], release: () => void libc().close(pipe[0]) },
      openTaps: (...how) => this.#openTaps(...how),
    });
  }

  static async open(): Promise<Scene> {
    return new Scene(await Deno.makeTempDir({ prefix: "kemari-sending-" }));
  }

  /** Runs the session until the secondary has the VM, and something that the guest says is held. */
  async hold(): Promise<{ guest: Deno.Conn; run: Promise<unknown> }> {
    await this.sending.connect();
    const run = this.sending.run().then(() => undefined, (error) => error);
    const stream = fullStream(1);
    assert.equal(
      Number(libc().write(this.#stream, stream.slice(), BigInt(stream.length))),
      stream.length,
    );
    await until(() => this.secondary.replica.committed === 1, "the first transaction");
    const guest = await Deno.connect({ transport: "unix", path: `${this.folder}/nic` });
    await guest.write(frame(1));
    await until(() => this.monitor.delayMs === OURS_MS, "a request for a checkpoint");
    assert.deepEqual(this.monitor.heard.slice(-2), [
      "query-migrate-parameters",
      "migrate-set-parameters",
    ]);
    return { guest, run };
  }

  /**
   * Has the secondary refuse, which ends the session.
   *
   * @returns What the command ends with, once nobody uses its taps any more.
   */
  async refuse(reason: NackReason, run: Promise<unknown>): Promise<{ ended: Promise<unknown> }> {
    await this.secondary.refuse(reason);
    const error = await run;
    return { ended: this.sending.part(error).then(() => undefined, (cause) => cause) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sending.close();
    await this.secondary[Symbol.asyncDispose]();
    await this.monitor[Symbol.asyncDispose]();
    this.#world.close();
    libc().close(this.#stream);
    await Deno.remove(this.folder, { recursive: true });
  }

  async #openTaps(...how: Parameters<SendEnds["openTaps"]>): Promise<PrimaryTapDevices> {
    const taps = await PrimaryTapDevices.open(...how);
    const vmStops = taps.vmStops;
    taps.vmStops = () => {
      this.done.push(STOPS);
      vmStops.call(taps);
    };
    return taps;
  }

  async #listen(): Promise<void> {
    try {
      using conn = await this.#world.accept();
      for await (const piece of conn.readable) this.heard = concat(this.heard, piece);
    } catch {
      // Disposed of.
    }
  }
}

/** Whether `send` serves the taps on, and QEMU's monitor is watched. */
function servesOn({ sending, monitor }: Scene): Promise<void> {
  return until(() => sending.state === "serving-on" && monitor.isWatched, "the taps served on");
}

Deno.test("given up by its secondary, send has QEMU stop its VM, and holds what it says until somebody lets it run", async () => {
  await using scene = await Scene.open();
  const { monitor, done } = scene;
  const { guest, run } = await scene.hold();
  const { ended } = await scene.refuse("silence", run);
  await servesOn(scene);
  assert.equal(monitor.isRunning, false);
  assert.equal(monitor.delayMs, OPERATORS_MS, "what was changed is put back");
  // The secondary does not wait for the connection's end, which may be seen at any time.
  assert.deepEqual(done.filter((step) => step !== ENDED), [STOPS, STOPPED]);
  await guest.write(frame(2));
  assert.deepEqual(scene.heard, new Uint8Array(0), "the secondary may run the VM");
  await monitor.resume();
  await until(() => scene.heard.length >= 2 * frame(1).length, "the guest's frames");
  assert.deepEqual(scene.heard, concat(frame(1), frame(2)));
  guest.close();
  const cause = await ended;
  assert.ok(cause instanceof WireError && cause.fault === "silence", `${cause}`);
  assert.match(cause.message, /has given this primary up/);
});

Deno.test("a VM that somebody has let run before send listens is heard of all the same", async () => {
  await using scene = await Scene.open();
  const { monitor } = scene;
  const { guest, run } = await scene.hold();
  monitor.onStopped = () => monitor.resumeUnheard();
  const { ended } = await scene.refuse("silence", run);
  await until(() => scene.heard.length > 0, "the guest's frame");
  assert.deepEqual(scene.heard, frame(1));
  guest.close();
  await ended;
});

Deno.test("of a VM that its secondary has, nothing gets out; QEMU has stopped it before the connection ends", async () => {
  await using scene = await Scene.open();
  const { monitor, done } = scene;
  const { guest, run } = await scene.hold();
  const { ended } = await scene.refuse("taken-over", run);
  await scene.secondary.ended;
  assert.deepEqual(done, [STOPS, STOPPED, ENDED]);
  await until(() => !monitor.isWatched, "the monitor left to others");
  guest.close();
  const cause = await ended;
  assert.ok(cause instanceof WireError && cause.fault === "taken-over", `${cause}`);
  assert.deepEqual(scene.heard, new Uint8Array(0));
});

Deno.test("interrupted before its secondary has looked at the image, send ends when the image bears no mark", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-sending-" });
  using silent = Deno.listen({ transport: "unix", path: `${folder}/silent` });
  await Deno.mkdir(`${folder}/images`);
  await Deno.writeFile(`${folder}/images/image`, new Uint8Array(4096));
  const marks = () => [...Deno.readDirSync(`${folder}/images`)].length - 1;
  const controller = new AbortController();
  const disk = parseDiskTap(`d=${folder}/images/image,unix:${folder}/disk`);
  const taps: TapSettings = { nets: [], disks: [disk], diskSync: "full" };
  const pipe = new Int32Array(2);
  libc().pipe2(new Uint8Array(pipe.buffer), O_NONBLOCK | O_CLOEXEC);
  const sending = sendingTo(`${folder}/silent`, { taps }, {
    input: { fd: pipe[0], release: () => void libc().close(pipe[0]) },
    openTaps: PrimaryTapDevices.open,
  }, controller.signal);
  await sending.connect();
  using _ = await silent.accept();
  assert.equal(marks(), 1);
  const interruption = new InterruptedError("interrupted");
  controller.abort(interruption);
  await assert.rejects(sending.run(), interruption);
  await assert.rejects(sending.part(interruption), interruption);
  const storage = Promise.withResolvers<void>();
  const { remove } = Deno;
  Deno.remove = (path) => storage.promise.then(() => remove(path));
  try {
    let isClosed = false;
    const closing = sending.close().then(() => isClosed = true);
    await delay(0);
    assert.equal(isClosed, false, "the process would end now");
    storage.resolve();
    await closing;
  } finally {
    Deno.remove = remove;
  }
  assert.equal(marks(), 0);
  libc().close(pipe[1]);
  await Deno.remove(folder, { recursive: true });
});
