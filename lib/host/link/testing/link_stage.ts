/** For tests: a receiver, and senders to it, on one reactor, joined by a real socket. */
import { createHash } from "node:crypto";
import {
  concat,
  configuration,
  deviceState,
  HEADER,
  memSize,
  page,
  PAGE_BYTES,
  ramSection,
  VMDESC,
  zero,
} from "../../../qemu/testing/synthetic_stream.ts";
import type { LinkSecurity } from "../../../decisions/link_security.ts";
import { TransportError } from "../../../errors.ts";
import { encodeHeader } from "../../../txn/frame_header.ts";
import { encodeHello, OFFERED_FEATURES, PROTOCOL_VERSION } from "../../../txn/hello.ts";
import { TXN } from "../../../txn/wire.ts";
import type { Replica } from "../../../replica/secondary/replica.ts";
import { cString, libc } from "../../system/libc.ts";
import { connectPeer, type PeerConnection } from "../peer_connection.ts";
import { PeerOutput } from "../peer_output.ts";
import { Reactor } from "../../system/reactor.ts";
import { ReceiverHost, type ReceiverSettings } from "../../receive/receiver_host.ts";
import type { SenderLinkSettings } from "../sender_link_settings.ts";
import { SenderLink } from "../sender_link.ts";
import { connectSocket } from "../../system/socket.ts";
import { never } from "../../system/never.ts";
import { LinkGuard } from "../../tls/link_guard.ts";
import { makeKeyFile } from "../../keygen.ts";

/** Both ends are on this host. */
const PLAIN = { kind: "plain", crossesNetworks: false } as const;

/** Links on which the same has to hold, by what stands in front of a test's name. */
export const LINKS: readonly (readonly [over: string, LinkSecurity])[] = [
  ["", PLAIN],
  ["over TLS: ", testKey()],
];

/** A key's file, which is removed when the tests of a file have ended. */
export function testKey(): LinkSecurity {
  const folder = Deno.makeTempDirSync({ prefix: "kemari-key-" });
  globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
  makeKeyFile(`${folder}/key`, "kemari");
  return { kind: "key", file: `${folder}/key` };
}

/** A hash of what a replica would activate. */
export function contentOf(replica: Replica): string {
  if (replica.committed === 0) return "nothing";
  const hash = createHash("sha256");
  for (const piece of replica.compose()) hash.update(piece);
  return hash.digest("hex");
}

/** A receiver that waits for senders, one after the other. */
export class Stage implements AsyncDisposable {
  readonly folder = Deno.makeTempDirSync({ prefix: "kemari-link-" });
  readonly path = `${this.folder}/s`;
  readonly receiver: ReceiverHost;

  readonly #address = { kind: "unix", path: this.path, text: "the socket" } as const;
  readonly #guard: LinkGuard;

  private constructor(
    readonly reactor: Reactor,
    options: Partial<ReceiverSettings>,
    security: LinkSecurity,
  ) {
    const listen = this.#address;
    this.#guard = LinkGuard.open(security, "sender", listen);
    this.receiver = new ReceiverHost(reactor, {
      listen,
      guard: LinkGuard.open(security, "receiver", listen),
      onLoss: "wait",
      maxTransactionBytes: 2 ** 30,
      heartbeatMs: 200,
      graceMs: 2000,
      software: "test",
      controlled: true,
      fenced: false,
      ...options,
    });
  }

  /** @param openTaps Opens the receiver's taps, which stay the caller's to close. */
  static async open(
    options: Partial<ReceiverSettings> = {},
    openTaps?: (reactor: Reactor) => Promise<ReceiverSettings["taps"]>,
    security: LinkSecurity = PLAIN,
  ): Promise<Stage> {
    const reactor = new Reactor();
    const taps = await openTaps?.(reactor);
    const stage = new Stage(
      reactor,
      { ...(taps === undefined ? {} : { taps }), ...options },
      security,
    );
    await stage.receiver.open(never);
    return stage;
  }

  connect(): Promise<number> {
    return connectSocket(this.#address, this.reactor, 1000, never);
  }

  /** Connects as senders do, in the way that was chosen; over another socket, if there is one. */
  async connection(path = this.path): Promise<PeerConnection> {
    return await connectPeer({ ...this.#address, path }, this.#guard, this.reactor, 1000, never);
  }

  /** Connects as a sender that says HELLO, and nothing more. */
  async greet(graceMs = 60_000): Promise<number> {
    const payload = encodeHello({
      version: PROTOCOL_VERSION,
      features: OFFERED_FEATURES,
      session: new Uint8Array(16),
      heartbeatMs: 200,
      graceMs,
      committed: 0,
      maxTransactionBytes: 0,
      software: "test",
    });
    const lengthBytes = payload.length;
    const header = { command: TXN.HELLO, flags: 0, sequence: 0, transaction: 0, lengthBytes };
    const hello = concat(encodeHeader(header), payload);
    const fd = await this.connect();
    libc().write(fd, hello as Uint8Array<ArrayBuffer>, BigInt(hello.length));
    return fd;
  }

  /** Sends a stream until the VM is handed over, or until an error. */
  async send(
    stream: Uint8Array,
    options: Partial<SenderLinkSettings> = {},
    openOutput?: ConstructorParameters<typeof SenderLink>[3],
    path?: string,
  ): Promise<SenderLink> {
    const file = `${this.folder}/stream`;
    Deno.writeFileSync(file, stream);
    const input = libc().open(cString(file), 0, 0);
    const link = new SenderLink(
      this.reactor,
      await this.connection(path),
      {
        commit: "async",
        stream: "auto",
        maxInFlightBytes: 2 ** 26,
        heartbeatMs: 200,
        graceMs: 2000,
        software: "test",
        ...options,
      },
      openOutput,
    );
    try {
      link.attach({ input, output: -1, name: "QEMU" });
      await this.reactor.run(() => link.handedOver, never);
      return link;
    } finally {
      link.close();
      libc().close(input);
    }
  }

  /** Waits until the receiver has no sender, and has dealt with the loss of the last one. */
  async quiet(): Promise<void> {
    await this.reactor.run(() => this.receiver.session === undefined, never);
  }

  /** Writes bytes as a sender would, then closes. */
  async speak(bytes: Uint8Array, hearBytes = 0): Promise<string> {
    const { transport } = await this.connection();
    transport.push([bytes]);
    const heard: Uint8Array[] = [];
    let count = 0;
    const connections = () => this.receiver.senders + this.receiver.strangers;
    const before = connections();
    try {
      let done = false;
      const orDone = (act: () => void) => () => {
        try {
          act();
        } catch (error) {
          if (!(error instanceof TransportError)) throw error;
          done = true;
        }
      };
      const say = orDone(() => watch.want(true, !transport.flush()));
      const buffer = new Uint8Array(65536);
      const hear = orDone(() => {
        const read = transport.read(buffer);
        if (read === 0) done = true;
        if (!read) return say();
        heard.push(buffer.slice(0, read));
        count += read;
      });
      const watch = transport.watch(this.reactor, { readable: hear, writable: say });
      say();
      const isSaid = () => transport.pendingBytes === 0 && count >= hearBytes;
      await this.reactor.run(() => done || isSaid(), never);
      watch.stop();
    } finally {
      transport.close();
    }
    await this.reactor.run(() => connections() > before, never);
    return new TextDecoder().decode(concat(heard));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.receiver.close();
    this.reactor.close();
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** Everything that a sender sends for a stream, from HELLO to HANDOVER. */
export async function wireOf(
  stream: Uint8Array,
  options: Partial<SenderLinkSettings> = {},
): Promise<Uint8Array> {
  await using stage = await Stage.open();
  const said: Uint8Array[] = [];
  class HeardOutput extends PeerOutput {
    override push(pieces: readonly Uint8Array[]): void {
      said.push(...pieces.map((piece) => piece.slice()));
      super.push(pieces);
    }
  }
  await stage.send(stream, options, (to, input) => new HeardOutput(to, input));
  return concat(said);
}

/** A machine of two pages: few enough bytes to cut its stream at each. */
export function tinyStream(seed: number): Uint8Array {
  return concat(
    HEADER,
    configuration(),
    ramSection("START", memSize([["pc.ram", 2 * PAGE_BYTES]])),
    ramSection("END", page(0, seed, "pc.ram"), zero(1)),
    deviceState(seed),
    VMDESC,
  );
}
