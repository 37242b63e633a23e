/** The NBD server and the clients that people use. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { ensureGuest } from "../../lab/guest/guest.ts";
import { ensureQemu } from "../../lab/provision/qemu.ts";
import { ensureTool, toolEnv } from "../../lab/provision/tools.ts";
import { startBooted } from "../../lab/vms/start_booted.ts";
import { ImageFile } from "../image/image_file.ts";
import { NbdServer } from "./nbd_server.ts";
import { Reactor } from "../system/reactor.ts";

const MIB = 1 << 20;
const SIZE = 64 * MIB;
const onProgress = (line: string) => console.error(line);

interface Served {
  readonly folder: string;
  readonly imagePath: string;
  readonly socket: string;
  readonly uri: string;
  readonly server: NbdServer;
  /** What the server said of clients and of the disk. */
  readonly complaints: string[];
}

interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Serves a sparse image of 64 MiB, as the export "disk", while `act` runs. */
async function serving(act: (served: Served) => Promise<void>, at?: string): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-nbd-" });
  const imagePath = `${at ?? folder}/image`;
  await Deno.writeFile(imagePath, new Uint8Array(0));
  await Deno.truncate(imagePath, SIZE);
  const socket = `${folder}/socket`;
  const reactor = new Reactor();
  const { signal } = new AbortController();
  using image = ImageFile.open(imagePath, reactor);
  const complaints: string[] = [];
  const server = await NbdServer.listen(
    {
      address: { kind: "unix", path: socket, text: `unix:${socket}` },
      exports: [{ name: "disk", backend: image, description: "the guest's disk" }],
      onDisconnect: (_, error) => error && complaints.push(error.message),
      onFailure: (_, error) => complaints.push(error.message),
    },
    reactor,
    signal,
  );
  const uri = `nbd+unix:///disk?socket=${socket}`;
  try {
    await reactor.during(act({ folder, imagePath, socket, uri, server, complaints }), signal);
  } finally {
    server.close();
    reactor.close();
    await Deno.remove(folder, { recursive: true });
  }
}

async function run(program: string, ...args: string[]): Promise<Outcome> {
  const command = new Deno.Command(program, { args, env: toolEnv(program), stdin: "null" });
  const { code, stdout, stderr } = await command.output();
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
}

async function runTool(tool: string, ...args: string[]): Promise<Outcome> {
  return await run(await ensureTool(tool, { onProgress }), ...args);
}

async function nbdsh(uri: string, script: string): Promise<Outcome> {
  return await runTool("nbdsh", "-c", `uri = ${JSON.stringify(uri)}`, "-c", script);
}

async function succeed(outcome: Promise<Outcome>): Promise<string> {
  const { code, stdout, stderr } = await outcome;
  assert.equal(code, 0, stderr || stdout);
  return stdout;
}

function assertSameFiles(one: string, other: string): void {
  assert.equal(Buffer.compare(Deno.readFileSync(one), Deno.readFileSync(other)), 0);
}

/** Random bytes here and there, holes between them. */
async function writeSparse(path: string): Promise<void> {
  using file = await Deno.open(path, { write: true, create: true });
  await file.truncate(SIZE);
  const block = new Uint8Array(65536);
  for (let at = 12_345; at < SIZE - MIB; at += 5 * MIB + 777) {
    await file.seek(at, Deno.SeekMode.Start);
    for (let i = 0; i < 20; i++) await file.write(crypto.getRandomValues(block));
  }
}

Deno.test("e2e: nbdinfo sees the export, what it can do and its holes", async () => {
  await serving(async ({ uri, imagePath, server }) => {
    const { exports: [found], structured } = JSON.parse(
      await succeed(runTool("nbdinfo", "--json", uri)),
    );
    assert.equal(structured, true);
    assert.equal(found["export-name"], "disk");
    assert.equal(found["export-size"], SIZE);
    assert.equal(found.description, "the guest's disk");
    assert.deepEqual(found.contexts, ["base:allocation"]);
    for (const word of ["cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero"]) {
      assert.equal(found[`can_${word}`], true, word);
    }
    assert.equal(found.is_read_only, false);
    const listed = JSON.parse(await succeed(runTool("nbdinfo", "--json", "--list", uri)));
    assert.equal(listed.exports.length, 1);
    using file = await Deno.open(imagePath, { write: true });
    await file.seek(MIB, Deno.SeekMode.Start);
    await file.write(new Uint8Array(65536).fill(1));
    const map = JSON.parse(await succeed(runTool("nbdinfo", "--json", "--map", uri)));
    assert.deepEqual(
      map.map(({ offset, length, type }: Record<string, number>) => [offset, length, type]),
      [[0, MIB, 3], [MIB, 65536, 0], [MIB + 65536, SIZE - MIB - 65536, 3]],
    );
    const missing = await runTool("nbdinfo", uri.replace("disk", "none"));
    assert.match(missing.stderr, /No such file or directory for export: none/);
    // It has ended; that its connection has is seen in the next round of the loop.
    await until(() => server.connections === 0, "the connection's end to be seen");
  });
});

Deno.test("e2e: nbdcopy brings an image in and out again, byte for byte", async () => {
  await serving(async ({ folder, uri, imagePath, server, complaints }) => {
    const original = `${folder}/original`;
    await writeSparse(original);
    await succeed(runTool("nbdcopy", "--flush", original, uri));
    assertSameFiles(original, imagePath);
    const copy = `${folder}/copy`;
    await succeed(runTool("nbdcopy", uri, copy));
    assertSameFiles(original, copy);
    // One connection, one request at a time, in odd sizes, holes not asked for.
    const slow = ["--synchronous", "--no-extents", "--request-size=32768", "--connections=1"];
    const other = `${folder}/other`;
    await succeed(runTool("nbdcopy", ...slow, uri, other));
    assertSameFiles(original, other);
    assert.ok(server.countersOf("disk").flushes > 0);
    assert.deepEqual(complaints, []);
  });
});

/** What nbdsh is told: every command, in each style of reply, then what must be refused. */
const NBDSH = `
import errno, os
def connect(structured):
    h = nbd.NBD()
    h.set_request_structured_replies(structured)
    if structured: h.add_meta_context("base:allocation")
    h.set_strict_mode(0)
    h.connect_uri(uri)
    assert h.get_structured_replies_negotiated() == structured
    return h
def refused(code, call):
    try: call()
    except nbd.Error as e:
        assert e.errnum == code, (e.errnum, code, e)
        return
    assert False, "not refused"
for structured in (True, False):
    h = connect(structured)
    size = h.get_size()
    data = os.urandom(5_000_000)
    h.pwrite(data, 513)
    assert h.pread(len(data), 513) == bytearray(data)
    h.pwrite(b"x" * 10, size - 10, nbd.CMD_FLAG_FUA)
    h.zero(1000, 2000)
    h.zero(1000, 3000, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
    assert h.pread(2000, 2000) == bytearray(2000 * b"\\0")
    h.zero(10000, 1 << 20, nbd.CMD_FLAG_FAST_ZERO)
    h.trim(1 << 20, 1 << 20, nbd.CMD_FLAG_FUA)
    h.cache(1 << 20, 0)
    h.flush()
    refused(errno.EINVAL, lambda: h.pread(2, size - 1))
    refused(errno.ENOSPC, lambda: h.pwrite(b"ab", size - 1))
    refused(errno.ENOSPC, lambda: h.zero(2, size - 1))
    refused(errno.EINVAL, lambda: h.trim(2, size - 1))
    refused(errno.EINVAL, lambda: h.pread(512, 0, 1 << 14))
    refused(errno.EINVAL, lambda: h.pread(0, 0))
    if structured:
        found = []
        status = lambda context, offset, extents, error: found.append((context, offset, extents))
        h.block_status(size, 0, status)
        assert found[0][:2] == ("base:allocation", 0)
        assert sum(found[0][2][::2]) <= size
        chunks = []
        h.pread_structured(4 << 20, 0, lambda data, offset, kind, e: chunks.append(kind))
        assert nbd.READ_HOLE in chunks or chunks == [nbd.READ_DATA], chunks
        whole = []
        h.pread_structured(4 << 20, 0, lambda d, o, k, e: whole.append(k), nbd.CMD_FLAG_DF)
        assert whole == [nbd.READ_DATA], whole
    assert h.pread(len(data) - 3 * (1 << 20), 513 + 3 * (1 << 20)) == bytearray(data)[3 << 20:]
    # Many at a time, to be answered in whatever order.
    buffers = [nbd.Buffer(65536) for i in range(64)]
    for i, b in enumerate(buffers): h.aio_pread(b, i * 65536)
    while h.aio_in_flight() > 0: h.poll(-1)
    joined = b"".join(b.to_bytearray() for b in buffers)
    assert joined == h.pread(64 * 65536, 0)
    h.shutdown()
# Away in the middle of a write, without a word.
h = connect(True)
h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(30_000_000)), 0)
os._exit(0)
`;
import { until } from "../../lab/program/until.ts";

Deno.test("e2e: nbdsh gets every command served and every fault refused", async () => {
  await serving(async ({ uri, imagePath, server, complaints }) => {
    await succeed(nbdsh(uri, NBDSH));
    await until(() => server.connections === 0, "the connection's end to be seen");
    assert.equal(server.countersOf("disk").failures, 0);
    assert.equal(complaints.length, 1);
    assert.match(complaints[0], /inside a request|reset/);
    assert.equal((await Deno.stat(imagePath)).size, SIZE);
  });
});

Deno.test("e2e: qemu-io reads, writes, zeroes, discards and is refused beyond the end", async () => {
  const { program } = await ensureQemu("11.1", { onProgress });
  const qemuIo = program.replace(/qemu-system-x86_64$/, "qemu-io");
  await serving(async ({ socket, complaints }) => {
    const image = ["-f", "raw", `nbd:unix:${socket}:exportname=disk`];
    const io = (...commands: string[]) =>
      run(qemuIo, ...commands.flatMap((command) => ["-c", command]), ...image);
    const told = await succeed(io(
      "write -P 7 0 2M",
      "write -P 9 513 1000",
      "read -P 9 513 1000",
      "read -P 7 1513 2000",
      "write -z 4k 8k",
      "read -P 0 4k 8k",
      "write -z -u 1M 64k",
      "read -P 0 1M 64k",
      "discard 64k 64k",
      "write -f -P 3 63M 1M",
      "aio_write -P 5 4M 4M",
      "aio_write -P 6 8M 4M",
      "aio_flush",
      "read -P 5 4M 4M",
      "read -P 6 8M 4M",
      "flush",
    ));
    assert.doesNotMatch(told, /failed|verification/i);
    const beyond = await io("write 64M 512");
    assert.match(beyond.stdout + beyond.stderr, /failed/);
    assert.deepEqual(complaints, []);
  });
});

Deno.test("e2e: a guest keeps an ext4 file system on it, fsync by fsync", async () => {
  const qemu = await ensureQemu("11.1", { onProgress });
  const guest = await ensureGuest({ onProgress });
  await serving(async ({ socket, imagePath, server, complaints }) => {
    await succeed(runTool("mke2fs", "-q", "-F", "-t", "ext4", imagePath));
    const machine = { qemu: qemu.program, guest, name: "nbd" };
    const drive = (file: string) => ({ ...machine, args: ["-drive", `${file},if=virtio`] });
    const vm = await startBooted(
      drive(`file=nbd:unix:${socket},format=raw`),
      drive(`driver=null-co,size=${SIZE},read-zeroes=on`),
    );
    try {
      const guestRun = async (command: string) => {
        const { code, output } = await vm.run(command);
        assert.equal(code, 0, output);
        return output;
      };
      await guestRun("mount -t ext4 /dev/vda /mnt");
      const before = server.countersOf("disk").flushes;
      await guestRun(
        "for i in 1 2 3 4 5; do echo line $i | dd of=/mnt/log oflag=append " +
          "conv=notrunc,fsync 2>/dev/null; done",
      );
      assert.ok(server.countersOf("disk").flushes >= before + 5);
      await guestRun("dd if=/dev/urandom of=/mnt/big bs=64k count=160 conv=fsync 2>/dev/null");
      await guestRun("sha256sum /mnt/big > /mnt/big.sha256; sync; rm -f /mnt/none");
      await guestRun("echo 3 > /proc/sys/vm/drop_caches; sha256sum -c /mnt/big.sha256");
      assert.equal(await guestRun("cat /mnt/log | tail -n 1"), "line 5\n");
      await guestRun("umount /mnt");
    } finally {
      await vm.dispose();
    }
    await succeed(runTool("e2fsck", "-f", "-n", imagePath));
    assert.deepEqual(complaints.filter((line) => !/reset|reader is gone/.test(line)), []);
  });
});

Deno.test({
  name: "e2e: a full disk is told to the client and to the operator, and the rest goes on",
  // Only root can make a file system that is full.
  ignore: Deno.uid() !== 0,
  fn: async () => {
    const small = await Deno.makeTempDir({ prefix: "kemari-full-" });
    await succeed(run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small));
    try {
      await serving(async ({ uri, complaints }) => {
        const script = "h.connect_uri(uri)\n" +
          "h.pwrite(b'a' * 65536, 0)\n" +
          "try: h.pwrite(b'b' * (8 << 20), 0)\n" +
          "except nbd.Error as e: print(e.errnum)\n" +
          "print(h.pread(1, 0))\n";
        const told = await succeed(nbdsh(uri, script));
        assert.deepEqual(told.trim().split("\n"), ["28", "bytearray(b'b')"]);
        assert.match(complaints[0], /image: cannot write at \d+: no space left/);
      }, small);
    } finally {
      await succeed(run("umount", small));
      await Deno.remove(small);
    }
  },
});
