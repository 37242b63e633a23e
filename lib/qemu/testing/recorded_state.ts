/**
 * For tests: cuts recorded streams into device states without the stream parser, so that the
 * parser's own mistakes cannot hide in what it is tested against.
 *
 * Knows only what the recordings contain: 4 KiB pages, no capabilities that change the RAM list.
 */

/** One device state of a recording. */
export interface RecordedState {
  readonly state: Uint8Array;
  /** Where it begins in the recording. */
  readonly offset: number;
}

/** A plain stream, or a COLO recording's first pass. */
export interface RecordedPass extends RecordedState {
  readonly json: Uint8Array;
  readonly jsonOffset: number;
}

/** The device state and description of the first pass. */
export function recordedPass(stream: Uint8Array): RecordedPass {
  const offset = skipRam(stream, 8);
  // These recordings have one JSON, and nothing like its first bytes in their device state.
  const jsonOffset = stream.findIndex((byte, at) => {
    return at > offset && byte === 0x7b && stream[at + 1] === 0x22 && stream[at - 5] === 0x06 &&
      stream[at - 6] === 0x00;
  });
  const jsonEnd = jsonOffset + viewOf(stream).getUint32(jsonOffset - 4);
  return {
    state: stream.subarray(offset, jsonOffset - 5),
    offset,
    json: stream.subarray(jsonOffset, jsonEnd),
    jsonOffset,
  };
}

/** The device states of a COLO recording's checkpoints. */
export function recordedCheckpoints(stream: Uint8Array): RecordedState[] {
  const view = viewOf(stream);
  const { json, jsonOffset } = recordedPass(stream);
  const states: RecordedState[] = [];
  let position = jsonOffset + json.length;
  // CHECKPOINT_REQUEST and VMSTATE_SEND, then RAM up to its EOF, then VMSTATE_SIZE.
  while (position + 9 < stream.length) {
    position = skipRam(stream, position + 8) + 1;
    const sizeBytes = Number(view.getBigUint64(position + 4));
    const offset = position + 12;
    states.push({ state: stream.subarray(offset, offset + sizeBytes), offset });
    position = offset + sizeBytes;
  }
  return states;
}

/** The offset behind the last `ram` section that begins at or after `position`. */
function skipRam(stream: Uint8Array, position: number): number {
  const view = viewOf(stream);
  let started = stream[position] !== 0x07;
  for (;;) {
    const kind = stream[position];
    if (kind === 0x07) {
      position += 5 + view.getUint32(position + 1);
    } else if (kind === 0x08) {
      position += 5 + view.getUint16(position + 3);
    } else if (kind === 0x01) {
      position = skipRecords(stream, position + 14 + stream[position + 5]);
      started = true;
    } else if (started && (kind === 0x02 || kind === 0x03)) {
      position = skipRecords(stream, position + 5);
    } else {
      return position;
    }
  }
}

function skipRecords(stream: Uint8Array, position: number): number {
  const view = viewOf(stream);
  for (;;) {
    const header = view.getBigUint64(position);
    const flags = Number(header & 0xfffn);
    position += 8;
    if (flags & 0x04) {
      for (let left = header & ~0xfffn; left > 0n;) {
        position += 1 + stream[position];
        left -= view.getBigUint64(position);
        position += 8;
      }
      continue;
    }
    if (flags & 0x10) return position + 5;
    if (!(flags & 0x20)) position += 1 + stream[position];
    if (flags & 0x02) position += 1;
    if (flags & 0x08) position += 4096;
    if (flags & 0x40) position += 3 + view.getUint16(position + 1);
  }
}

function viewOf(stream: Uint8Array): DataView {
  return new DataView(stream.buffer, stream.byteOffset, stream.byteLength);
}
