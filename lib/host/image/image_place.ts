/**
 * Where an image is: its device, and the devices below, down to the storage, in the form that
 * `same_image.ts` compares.
 */
import { OF, UNSEEN, WEAK } from "../../decisions/same_image.ts";

/** Identities that are unique in the world, such as serial numbers. */
const UNIQUE = /^(naa\.|eui\.|uuid\.)[0-9a-f-]*[1-9a-f]/i;
/** The most devices on top of each other: more than anybody stacks. */
const MAX_DEPTH = 16;

/**
 * Describes an image's place.
 *
 * @param path The path of a file or a block device.
 * @param stat The result of stat(2) for the path, which may have to wait for the storage.
 * @param ofFile Describes the file behind a loop device, given its path.
 */
export function placeOf(
  path: string,
  { isBlockDevice, rdev }: Pick<Deno.FileInfo, "isBlockDevice" | "rdev">,
  ofFile: (path: string) => string,
): string {
  if (!isBlockDevice) return ofFile(path);
  const [major, minor] = deviceNumbers(rdev ?? 0);
  return placeOfDevice(Deno.realPathSync(`/sys/dev/block/${major}:${minor}`), ofFile);
}

/** As glibc's gnu_dev_major() and gnu_dev_minor(). */
function deviceNumbers(rdev: number): [number, number] {
  const device = BigInt(rdev);
  const major = device >> 8n & 0xfffn | device >> 32n & ~0xfffn;
  const minor = device & 0xffn | device >> 12n & ~0xffn;
  return [Number(major), Number(minor)];
}

/** @param sysfs The device's folder in /sys. */
export function placeOfDevice(
  sysfs: string,
  ofFile: (path: string) => string,
  depth = 0,
): string {
  if (depth > MAX_DEPTH) return UNSEEN;
  const under = (path: string) => placeOfDevice(path, ofFile, depth + 1);
  if (read(`${sysfs}/partition`) !== "") {
    const range = `${read(`${sysfs}/start`)} ${read(`${sysfs}/size`)}`;
    return `part ${range}${OF}${under(sysfs.slice(0, sysfs.lastIndexOf("/")))}`;
  }
  const backing = read(`${sysfs}/loop/backing_file`);
  if (backing !== "") {
    const range = `${read(`${sysfs}/loop/offset`)} ${read(`${sysfs}/loop/sizelimit`)}`;
    const file = ofFile(backing);
    return range === "0 0" ? file : `loop ${range}${OF}${file}`;
  }
  const slaves = entriesOf(`${sysfs}/slaves`);
  if (slaves.length > 0) {
    const below = [
      ...new Set(slaves.map((name) => under(Deno.realPathSync(`${sysfs}/slaves/${name}`)))),
    ];
    const all = below.length === 1 ? below[0] : `(${below.toSorted().join(", ")})`;
    const uuid = plain(read(`${sysfs}/dm/uuid`));
    // Several paths to one device.
    if (uuid.startsWith("mpath-")) return all;
    // How this device is made of others is not known.
    return uuid === "" ? UNSEEN : `dm ${uuid}${OF}${all}`;
  }
  return placeOfLeaf(sysfs);
}

function placeOfLeaf(sysfs: string): string {
  for (const file of ["wwid", "device/wwid"]) {
    const wwid = plain(read(`${sysfs}/${file}`));
    if (wwid !== "") return UNIQUE.test(wwid) ? wwid : `${WEAK}${wwid}`;
  }
  const serial = plain(read(`${sysfs}/serial`) || read(`${sysfs}/device/serial`));
  return serial === "" ? UNSEEN : `${WEAK}${serial}`;
}

/** Replaces the characters that have a meaning in a place's description. */
function plain(text: string): string {
  return text.replace(/[^\x21-\x7e]+/g, "_").replace(/[@?]/g, "_").slice(0, 200);
}

function read(path: string): string {
  try {
    return Deno.readTextFileSync(path).trim();
  } catch {
    return "";
  }
}

function entriesOf(path: string): string[] {
  try {
    return [...Deno.readDirSync(path)].map(({ name }) => name);
  } catch {
    return [];
  }
}
