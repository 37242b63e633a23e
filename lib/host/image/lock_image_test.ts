import assert from "node:assert/strict";
import { TransportError } from "../../errors.ts";
import { parseDiskTap } from "../disk/disk_tap_address.ts";
import { ImageFile } from "./image_file.ts";
import { lockImage } from "./lock_image.ts";
import { cString, libc } from "../system/libc.ts";
import { Reactor } from "../system/reactor.ts";
import { SecondaryTapDevices } from "../taps/secondary_tap_devices.ts";
import { PrimaryTapDevices } from "../taps/primary_tap_devices.ts";
import { O_CLOEXEC, O_RDWR } from "../system/linux.ts";
import { never } from "../system/never.ts";

const reactor = new Reactor();
const open = (path: string, use: Parameters<typeof ImageFile.open>[2] = {}) =>
  ImageFile.open(path, reactor, use);

/** Runs with a folder that has a raw image. */
async function withImage(act: (path: string, folder: string) => void | Promise<void>) {
  const folder = Deno.makeTempDirSync({ prefix: "kemari-lock-" });
  try {
    const path = `${folder}/disk.img`;
    Deno.writeFileSync(path, new Uint8Array(64 * 1024));
    await act(path, folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function assertInUse(act: () => unknown, message = /the image is in use/): void {
  assert.throws(act, (error) => {
    assert.ok(error instanceof TransportError, `${error}`);
    assert.equal(error.party, "disk");
    assert.match(error.message, message);
    return true;
  });
}

Deno.test("an image that is served is opened a second time only when it is closed", () =>
  withImage((path, folder) => {
    Deno.symlinkSync(path, `${folder}/link`);
    Deno.linkSync(path, `${folder}/hard`);
    {
      using _image = open(path);
      for (const name of [path, `${folder}/link`, `${folder}/hard`]) {
        assertInUse(() => open(name));
      }
    }
    using _image = open(path);
  }));

Deno.test("a shared image is for two, and not for whoever does not share it", () =>
  withImage((path) => {
    const shared = () => open(path, { isShared: true });
    const first = shared();
    const second = shared();
    assertInUse(shared, /two kemaris share it already/);
    assertInUse(() => open(path));
    first.close();
    const third = shared();
    assertInUse(shared, /two kemaris share it already/);
    second.close();
    third.close();
    using _alone = open(path);
    assertInUse(shared);
  }));

Deno.test("a shared image that something else writes is refused to both of a pair", () =>
  withImage((path) => {
    // What QEMU takes: reading, writing, and that nobody else writes.
    const fd = libc().open(cString(path), O_RDWR | O_CLOEXEC, 0);
    const take = (type: number, at: number) => {
      const record = new Uint8Array(32);
      const view = new DataView(record.buffer);
      view.setInt16(0, type, true);
      view.setBigInt64(8, BigInt(at), true);
      view.setBigInt64(16, 1n, true);
      assert.equal(libc().fcntlLock(fd, 37, record), 0);
    };
    for (const at of [100, 101, 201]) take(0, at);
    assertInUse(() => open(path));
    for (let tries = 0; tries < 3; tries++) {
      // The refused one leaves nothing behind that the next would believe.
      assertInUse(() => open(path, { isShared: true }));
    }
    for (const at of [100, 101, 201]) take(2, at);
    open(path, { isShared: true }).close();
    // Who only says that it allows no writer keeps us away too.
    take(0, 201);
    assertInUse(() => open(path));
    libc().close(fd);
    open(path).close();
  }));

Deno.test("where there are no such locks an image is used without", () =>
  withImage((path) => {
    using image = open(path, { readOnly: true });
    assert.ok(image.sizeBytes > 0);
    const fd = libc().open(cString(path), O_RDWR | O_CLOEXEC, 0);
    // EINVAL, as a kernel without them says.
    for (const isShared of [false, true]) {
      lockImage(fd, path, isShared, { look: 9999, set: 9999 });
    }
    libc().close(fd);
  }));

Deno.test("one image given twice is refused, shared or not, at either end", () =>
  withImage(async (path, folder) => {
    Deno.symlinkSync(path, `${folder}/link`);
    for (const mode of ["replicated", "shared"]) {
      const disks = [`a=${path}`, `b=${folder}/link`].map((disk, i) =>
        parseDiskTap(`${disk},unix:${folder}/${i},mode=${mode}`)
      );
      const refusal = { name: "TransportError", message: /disks a and b have the same image/ };
      const settings = { nets: [], disks, diskSync: "full" } as const;
      await assert.rejects(PrimaryTapDevices.open(settings, reactor, never), refusal);
      await assert.rejects(SecondaryTapDevices.open([], disks, reactor, never), refusal);
    }
  }));

Deno.test("an image in another format is refused by its name, unless raw is said", () =>
  withImage((path) => {
    Deno.writeTextFileSync(path, "QFI\u00fb");
    const bytes = new Uint8Array(64 * 1024);
    bytes.set([0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3]);
    Deno.writeFileSync(path, bytes);
    assert.throws(() => open(path), (error) => {
      assert.ok(error instanceof TransportError);
      assert.match(error.message, /the image is in format qcow2/);
      assert.match(error.hint!, /format=raw/);
      return true;
    });
    // The refusal has let go of its locks.
    open(path, { format: "raw" }).close();
    // A fixed VHD has its mark at the end.
    bytes.fill(0);
    bytes.set(new TextEncoder().encode("conectix"), bytes.length - 512);
    Deno.writeFileSync(path, bytes);
    assert.throws(() => open(path), /in format vpc/);
  }));
