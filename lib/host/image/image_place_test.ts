import assert from "node:assert/strict";
import { SEEN } from "../../decisions/same_image.ts";
import { placeOfDevice } from "./image_place.ts";

/** A block device as sysfs shows it: files, and the devices that it is made of. */
interface Device {
  readonly [file: string]: string;
}

/** The place of the last device, of those that are there. */
function placeIn(devices: Record<string, Device>, slaves: Record<string, string[]> = {}): string {
  const folder = Deno.makeTempDirSync({ prefix: "kemari-sysfs-" });
  try {
    for (const [name, files] of Object.entries(devices)) {
      for (const [file, text] of Object.entries(files)) {
        const path = `${folder}/${name}/${file}`;
        Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
        Deno.writeTextFileSync(path, text + "\n");
      }
    }
    for (const [name, below] of Object.entries(slaves)) {
      Deno.mkdirSync(`${folder}/${name}/slaves`);
      for (const each of below) {
        Deno.symlinkSync(`${folder}/${each}`, `${folder}/${name}/slaves/${each}`);
      }
    }
    return placeOfDevice(`${folder}/${Object.keys(devices).at(-1)}`, () => SEEN);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

const LUN = "naa.60014055f1b2c3d4e5f60718293a4b5c";

Deno.test("a device is known by its maker's number, and by others only weakly", () => {
  const cases: [Device, string][] = [
    [{ "device/wwid": LUN }, LUN],
    [{ wwid: "eui.0025385b71b00001" }, "eui.0025385b71b00001"],
    [
      { wwid: "uuid.6c5a2a1e-0d0f-4b6c-8c4a-1b2c3d4e5f60" },
      "uuid.6c5a2a1e-0d0f-4b6c-8c4a-1b2c3d4e5f60",
    ],
    [{ wwid: "eui.0000000000000000" }, "weak:eui.0000000000000000"],
    [
      { "device/wwid": "t10.ATA     QEMU HARDDISK                           QM00001" },
      "weak:t10.ATA_QEMU_HARDDISK_QM00001",
    ],
    [{ wwid: "nvme.1b36-64656164-51454d55-00000001" }, "weak:nvme.1b36-64656164-51454d55-00000001"],
    [{ serial: "data1" }, "weak:data1"],
    [{ serial: "a@b?" }, "weak:a_b_"],
    [{ size: "2048" }, "?"],
    [{ "loop/backing_file": "/var/lib/a.img", "loop/offset": "0", "loop/sizelimit": "0" }, "@"],
  ];
  for (const [device, place] of cases) assert.equal(placeIn({ sda: device }), place);
});

Deno.test("a partition is a part of its disk", () => {
  const devices = {
    sda: { "device/wwid": LUN },
    "sda/sda1": { partition: "1", start: "2048", size: "4096" },
  };
  assert.equal(placeIn(devices), `part 2048 4096 of ${LUN}`);
});

Deno.test("a volume is known by its UUID and by what it lies on, in any order", () => {
  const sda = { "device/wwid": LUN };
  const sdb = { "device/wwid": "naa.7" };
  const uuid = "LVM-abcDEF";
  const dm = { "dm/uuid": uuid };
  const one = placeIn({ sda, dm }, { dm: ["sda"] });
  assert.equal(one, `dm ${uuid} of ${LUN}`);
  const two = placeIn({ sda, sdb, dm }, { dm: ["sdb", "sda"] });
  assert.equal(two, `dm ${uuid} of (${LUN}, naa.7)`);
  // Without a UUID it is not known which part it is.
  assert.equal(placeIn({ sda, dm: { "dm/name": "x", "dm/uuid": "" } }, { dm: ["sda"] }), "?");
});

Deno.test("several ways to one device are that device", () => {
  const devices = {
    sda: { "device/wwid": LUN },
    sdb: { "device/wwid": LUN },
    dm: { "dm/uuid": "mpath-3600140" },
  };
  assert.equal(placeIn(devices, { dm: ["sda", "sdb"] }), LUN);
});
