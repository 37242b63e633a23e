import assert from "node:assert/strict";
import { encodeTapEvent, type TapEvent } from "../../replica/events/tap_events.ts";
import type { Done } from "../../replica/events/done.ts";
import { MOST_UNRELEASED_BYTES } from "../../replica/events/unreleased_output.ts";
import { HELD_LIMITS } from "../disk/primary_disk.ts";
import { DEFAULT_LIMITS } from "../net/net_tap.ts";
import { ImageFile } from "../image/image_file.ts";
import { parseDiskTap } from "../disk/disk_tap_address.ts";
import { FrameSocket } from "../net/frame_socket.ts";
import { frame, numberOf, unix } from "../net/testing/net_tap_scene.ts";
import { never } from "../system/never.ts";
import { Reactor } from "../system/reactor.ts";
import { SecondaryTapDevices } from "./secondary_tap_devices.ts";
import { connectSocket, listenSocket } from "../system/socket.ts";
import { parseNetTap } from "../net/net_tap_address.ts";

const ALL = { net: true, disk: true, input: true };

function stage(set: SecondaryTapDevices, event: TapEvent): void {
  const [head, data] = encodeTapEvent(event);
  const payload = new Uint8Array(head.length + (data?.length ?? 0));
  payload.set(head);
  if (data !== undefined) payload.set(data, head.length);
  set.secondaryTaps.stage(payload, 0);
}

Deno.test("an activation that came to nothing is forgotten, and the next replays what is due then", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-taps-" });
  const reactor = new Reactor();
  try {
    const image = `${folder}/image`;
    await Deno.writeFile(image, new Uint8Array(8192));
    const disk = parseDiskTap(`d=${image},unix:${folder}/nbd,mode=shared`);
    const set = await SecondaryTapDevices.open([], [disk], reactor, never);
    const first = async () => (await Deno.readFile(image))[0];
    const write = (value: number): TapEvent => {
      return { kind: "write", tap: "d", offset: 0, data: Uint8Array.of(value) };
    };
    stage(set, { kind: "disk", tap: "d", sizeBytes: 8192, mode: "shared" });
    stage(set, write(1));
    set.secondaryTaps.commit(1);
    await set.activate(ALL, never);
    assert.equal(await first(), 1);
    set.deactivate();
    // The primary goes on, with a session of its own.
    set.secondaryTaps.sessionBegins();
    stage(set, { kind: "disk", tap: "d", sizeBytes: 8192, mode: "shared" });
    stage(set, write(2));
    set.secondaryTaps.commit(2);
    assert.equal(await first(), 1, "not before it is activated");
    await set.activate(ALL, never);
    assert.equal(await first(), 2);
    const { disks: [{ gate, server }] } = set.surrender();
    assert.ok(gate.isOpen);
    server.close();
    gate.image.close();
  } finally {
    reactor.close();
    await Deno.remove(folder, { recursive: true });
  }
});

for (const mode of ["replicated", "shared"] as const) {
  Deno.test(`${mode}: what the guest was told is durable is flushed behind a takeover, which does not wait`, async () => {
    const folder = await Deno.makeTempDir({ prefix: "kemari-taps-" });
    const reactor = new Reactor();
    const { write, flush } = ImageFile.prototype;
    try {
      const path = `${folder}/image`;
      await Deno.writeFile(path, new Uint8Array(8192));
      const disk = parseDiskTap(`d=${path},unix:${folder}/nbd,mode=${mode}`);
      const set = await SecondaryTapDevices.open([], [disk], reactor, never);
      stage(set, { kind: "disk", tap: "d", sizeBytes: 8192, mode });
      stage(set, { kind: "write", tap: "d", offset: 0, data: Uint8Array.of(7) });
      if (mode === "replicated") stage(set, { kind: "copied", tap: "d" });
      set.secondaryTaps.commit(1);
      await set.prepare(never);
      const asked: string[] = [];
      let answer: Done | undefined;
      ImageFile.prototype.write = function (...args) {
        asked.push("write");
        write.apply(this, args);
      };
      ImageFile.prototype.flush = (done) => {
        asked.push("flush");
        answer = done;
      };
      await set.activate(ALL, never);
      assert.deepEqual(asked, mode === "shared" ? ["write", "flush"] : ["flush"]);
      answer!();
      set.close();
    } finally {
      Object.assign(ImageFile.prototype, { write, flush });
      reactor.close();
      await Deno.remove(folder, { recursive: true });
    }
  });
}

Deno.test("behind an activation that came to nothing a guest hears nothing, as before it", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-taps-" });
  const reactor = new Reactor();
  const sockets: { close(): void }[] = [];
  try {
    const listener = await listenSocket(unix(`${folder}/out`), reactor, never);
    sockets.push(listener);
    const net = parseNetTap(`net0=unix:${folder}/in,unix:${folder}/out`);
    const set = await SecondaryTapDevices.open([net], [], reactor, never);
    sockets.push(set);
    const world = new FrameSocket(listener.accept()!, "world");
    const guest = new FrameSocket(await connectSocket(unix(net.in.path), reactor, 1000, never), "");
    sockets.push(world, guest);
    const heard: number[] = [];
    /** @param isHeard Then it is waited for; else for so long that it would have come. */
    const say = async (number: number, isHeard: boolean) => {
      assert.ok(world.send(frame(number)) && world.flush());
      const end = performance.now() + (isHeard ? 20_000 : 12);
      do {
        await reactor.sleep(2, never);
        guest.receive(1 << 20, (each) => heard.push(numberOf(each)));
      } while (performance.now() < end && heard.at(-1) !== number);
    };
    await say(1, false);
    await set.activate(ALL, never);
    await say(2, true);
    set.deactivate();
    await say(3, false);
    await set.activate(ALL, never);
    await say(4, true);
    assert.deepEqual(heard, [2, 4]);
  } finally {
    for (const socket of sockets) socket.close();
    reactor.close();
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a primary is held back, or gives up, before it leaves too much unreleased", () => {
  assert.ok(DEFAULT_LIMITS.maxBytes * 1.5 < MOST_UNRELEASED_BYTES.packets);
  assert.ok(HELD_LIMITS.giveUp * 1.25 < MOST_UNRELEASED_BYTES.writes);
});
