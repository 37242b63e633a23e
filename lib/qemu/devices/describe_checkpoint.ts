/**
 * The description of a checkpoint's device state.
 *
 * QEMU describes a COLO migration's first pass and none of its checkpoints. Their states may have
 * another shape: if the protection of a VM began in its firmware, the first pass lacks what devices
 * have only when a driver has set them up. QEMU loads such a state all the same; a reader that
 * relies on the description cannot. A machine with `suppress-vmdesc=on` describes nothing.
 */
import { WireError } from "../../errors.ts";
import { partitionDeviceState } from "./device_partition.ts";
import { sketchDeviceState, type SketchedSection } from "./device_sketch.ts";
import { FOOTER_BYTES, sectionHeaderBytes, walkIfFits } from "./device_state.ts";
import { deviceKey, parseVmdesc, type Vmdesc, type VmdescDevice } from "./vmdesc.ts";
import { SECTION } from "../wire.ts";

/**
 * Describes a checkpoint's device state by the description of another state of the same VM. A
 * section that does not fit is described as one buffer of as many bytes as it has.
 *
 * @param json Not changed.
 * @param device From the first section's type byte up to and including EOF. Not changed.
 * @returns `json` itself if it fits already, if it is not a description, or if the state's sections
 *   cannot be found: QEMU loads the state all the same.
 */
export function describeCheckpoint(json: Uint8Array, device: Uint8Array): Uint8Array {
  try {
    const described = parseVmdesc(json, 0);
    if (fits(device, described)) return json;
    const known = described.devices.map((each) => ({ ...each, sizeBytes: sectionBytes(each) }));
    const { sections, isComplete } = sketchDeviceState(device, known, 0);
    if (!isComplete) return json;
    const anew = describeAnew(json, described, device, sections);
    return fits(device, parseVmdesc(anew, 0)) ? anew : json;
  } catch {
    // Whatever a peer has written there: a description that may not be needed must not keep a VM
    // from going on.
    return json;
  }
}

/**
 * Describes device state that QEMU has not described: each section as one buffer of as many bytes
 * as it has. A QEMU that expects a description skips it, and warns if there is none.
 *
 * @param device From the first section's type byte up to and including EOF. Not changed.
 * @param pageBytes The machine's page size.
 * @returns `undefined` if the state's sections cannot be found.
 */
export function describeBlindly(device: Uint8Array, pageBytes: number): Uint8Array | undefined {
  try {
    const devices = partitionDeviceState(device, 0).map(describeAsBuffer);
    return new TextEncoder().encode(JSON.stringify({ page_size: pageBytes, devices }));
  } catch (error) {
    if (error instanceof WireError) return undefined;
    throw error;
  }
}

function describeAsBuffer(
  { name, instance, version, sizeBytes, headerBytes }: SketchedSection,
): JsonDevice & Record<string, unknown> {
  const payloadBytes = sizeBytes - headerBytes - FOOTER_BYTES;
  return {
    name,
    instance_id: instance,
    version,
    fields: [{ name: "state", type: "buffer", size: payloadBytes }],
  };
}

/** A device in QEMU's JSON; its other fields are kept, except duplicate keys. */
interface JsonDevice {
  readonly name: string;
  readonly instance_id: number;
}

function describeAnew(
  json: Uint8Array,
  { devices, pageSizeBytes }: Vmdesc,
  device: Uint8Array,
  sections: readonly SketchedSection[],
): Uint8Array {
  const root = JSON.parse(new TextDecoder().decode(json)) as { devices: JsonDevice[] };
  const before = new Map(
    root.devices.map((each) => [deviceKey(each.name, each.instance_id), each]),
  );
  const known = new Map(devices.map((each) => [deviceKey(each.name, each.instance), each]));
  const after = sections.map((section) => {
    const { name, instance, start, sizeBytes } = section;
    const key = deviceKey(name, instance);
    const end = start + sizeBytes;
    const alone = device.slice(start, end + 1);
    alone[sizeBytes] = SECTION.QEMU_VM_EOF;
    const same = known.get(key);
    if (same !== undefined && fits(alone, { pageSizeBytes, devices: [same] })) {
      return before.get(key);
    }
    return describeAsBuffer(section);
  });
  return new TextEncoder().encode(JSON.stringify({ ...root, devices: after }));
}

/** Header, fields and footer of a device's section. */
function sectionBytes({ name, struct }: VmdescDevice): number {
  return sectionHeaderBytes(new TextEncoder().encode(name).length) + struct.sizeBytes +
    FOOTER_BYTES;
}

function fits(device: Uint8Array, described: Vmdesc): boolean {
  return walkIfFits(device, described, 0) !== undefined;
}
