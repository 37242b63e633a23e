/**
 * An image's thread: carries out requests in the order in which they came, and may wait for storage
 * for any time.
 */
import { libc } from "../system/libc.ts";
import { ERRNO } from "../system/linux.ts";
import { IMAGE_OP, ImageCalls } from "./image_calls.ts";
import { ImageRing } from "./image_ring.ts";
import { ShortWait } from "./short_wait.ts";

/** The message that starts it. */
export interface ImageWorkerStart {
  readonly memory: SharedArrayBuffer;
  /** The image's descriptor, closed by the worker. */
  readonly fd: number;
  /** An eventfd, written when there are answers; closed by the worker. */
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

/** A client that waits for its requests sends the next one within this time. */
const SHORT_MS = 0.1;

const GIVEN_UP = { code: ERRNO.ECANCELED, at: 0, inFlush: false };

function changes(op: number): boolean {
  return op === IMAGE_OP.WRITE || op === IMAGE_OP.ZERO || op === IMAGE_OP.TRIM;
}

function serve({ memory, fd, signalFd, sizeBytes }: ImageWorkerStart): void {
  const ring = new ImageRing(memory);
  const calls = new ImageCalls(fd, sizeBytes, () => ring.isEnding);
  const one = new Uint8Array(new BigUint64Array([1n]).buffer);
  const next = new ShortWait(SHORT_MS);
  const hasCome = () => ring.asked !== taken;
  let taken = 0;
  while (!ring.isEnding) {
    if (ring.asked === taken && !next.until(hasCome)) {
      const idleAt = performance.now();
      ring.sleep(taken);
      next.tell(performance.now() - idleAt);
      continue;
    }
    const call = ring.take(taken);
    const result = changes(call.op) && ring.isGivenUp(taken) ? GIVEN_UP : calls.perform(call);
    if (ring.answer(taken, result)) libc().write(signalFd, one, 8n);
    taken = (taken + 1) | 0;
  }
  while (taken !== ring.asked) {
    ring.answer(taken, GIVEN_UP);
    taken = (taken + 1) | 0;
  }
  libc().close(fd);
  libc().close(signalFd);
  ring.ended();
}
