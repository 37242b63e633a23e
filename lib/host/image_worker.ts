/**
 * One image's thread: does what it is asked, in the order in which it was asked, and may wait for
 * storage as long as that takes.
 */
import { ERRNO, libc } from "./libc.ts";
import { ImageCalls } from "./image_calls.ts";
import { ImageRing } from "./image_ring.ts";

/** What it starts with. */
export interface ImageWorkerStart {
  readonly memory: SharedArrayBuffer;
  /** The image; the worker's to close. */
  readonly fd: number;
  /** An eventfd, written when there are answers; the worker's to close. */
  readonly signalFd: number;
  readonly sizeBytes: number;
}

const scope = self as unknown as {
  onmessage: ((event: MessageEvent<ImageWorkerStart>) => void) | null;
  close(): void;
};

scope.onmessage = ({ data }) => {
  serve(data);
  scope.close();
};

function serve({ memory, fd, signalFd, sizeBytes }: ImageWorkerStart): void {
  const ring = new ImageRing(memory);
  const calls = new ImageCalls(fd, sizeBytes, () => ring.isEnding);
  const one = new Uint8Array(new BigUint64Array([1n]).buffer);
  let taken = 0;
  while (!ring.isEnding) {
    if (ring.asked === taken) {
      ring.sleep(taken);
      continue;
    }
    const result = calls.perform(ring.take(taken));
    if (ring.answer(taken, result)) libc().write(signalFd, one, 8n);
    taken = (taken + 1) | 0;
  }
  while (taken !== ring.asked) {
    ring.answer(taken, { code: ERRNO.ECANCELED, at: 0, inFlush: false });
    taken = (taken + 1) | 0;
  }
  libc().close(fd);
  libc().close(signalFd);
  ring.ended();
}
