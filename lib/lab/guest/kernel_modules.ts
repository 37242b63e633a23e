/** Which kernel modules a guest needs, and in which order they load. */

import { QemuError } from "../../errors.ts";

/**
 * Reads the `key=value` strings of a module's `.modinfo` section.
 *
 * A Debian package has no `modules.dep` (its postinst makes it); each module names what it needs.
 *
 * @param elf A whole uncompressed ELF64 little-endian object.
 * @throws {QemuError} If it is none, or has no `.modinfo`.
 */
export function readModinfo(elf: Uint8Array): ReadonlyMap<string, string> {
  const view = new DataView(elf.buffer, elf.byteOffset, elf.byteLength);
  const text = new TextDecoder();
  if (elf.length < 64 || view.getUint32(0) !== 0x7f454c46 || elf[4] !== 2) {
    throw new QemuError("guest", "NotAModule", "a kernel module is not a 64-bit ELF object");
  }
  const tableOffset = Number(view.getBigUint64(0x28, true));
  const entryBytes = view.getUint16(0x3a, true);
  const count = view.getUint16(0x3c, true);
  const section = (index: number) => {
    const at = tableOffset + index * entryBytes;
    const offset = Number(view.getBigUint64(at + 0x18, true));
    const length = Number(view.getBigUint64(at + 0x20, true));
    return { name: view.getUint32(at, true), bytes: elf.subarray(offset, offset + length) };
  };
  const names = section(view.getUint16(0x3e, true)).bytes;
  for (let index = 0; index < count; index++) {
    const { name, bytes } = section(index);
    const end = names.indexOf(0, name);
    if (text.decode(names.subarray(name, end)) !== ".modinfo") continue;
    const info = new Map<string, string>();
    for (const line of text.decode(bytes).split("\0")) {
      const equals = line.indexOf("=");
      if (equals > 0 && !info.has(line.slice(0, equals))) {
        info.set(line.slice(0, equals), line.slice(equals + 1));
      }
    }
    return info;
  }
  throw new QemuError("guest", "NotAModule", "a kernel module has no .modinfo section");
}

/** A module's name as `depends=` spells it: no folder, no suffix, `-` as `_`. */
export function moduleName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1).replace(/\.ko$/, "").replaceAll("-", "_");
}

/**
 * The order in which modules must be loaded so that each finds what it depends on.
 *
 * @param wanted Names, in the order of preference.
 * @param dependsOf What a module depends on; `undefined` if there is no such module.
 * @returns Each needed module once, dependencies first. Wanted names that do not exist are left
 *   out: the kernel may have them built in.
 * @throws {QemuError} If a dependency is missing, or they form a circle.
 */
export function loadOrder(
  wanted: readonly string[],
  dependsOf: (name: string) => readonly string[] | undefined,
): string[] {
  const order: string[] = [];
  const done = new Set<string>();
  const visit = (name: string, above: readonly string[]) => {
    if (done.has(name)) return;
    if (above.includes(name)) {
      throw new QemuError("guest", "ModuleLoop", `modules need each other: ${above.join(" → ")}`);
    }
    const depends = dependsOf(name);
    if (!depends) {
      if (above.length === 0) return;
      throw new QemuError("guest", "NoModule", `${above.at(-1)} needs ${name}, which is missing`);
    }
    for (const dependency of depends) visit(dependency, [...above, name]);
    done.add(name);
    order.push(name);
  };
  for (const name of wanted) visit(name.replaceAll("-", "_"), []);
  return order;
}
