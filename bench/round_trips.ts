/** Requests and responses on one TCP connection from inside a lab's namespace. */
import { CountedClient } from "../lib/lab/network/counted_client.ts";
import { delay } from "../lib/host/system/delay.ts";

const MESSAGE = new Uint8Array(64).fill(0x2e);
/** How long signals and other tasks may have to wait. */
const SLICE_MS = 50;

/**
 * Sends a message and waits for it to come back, repeatedly, for some seconds.
 *
 * @param namespace Where the client is. @param host IPv4 address of a server that echoes.
 * @returns Each round trip in ms.
 * @throws {TransportError} No answer comes for 10 s.
 */
export async function measureRoundTrips(
  namespace: string,
  host: string,
  port: number,
  seconds: number,
  signal: AbortSignal,
): Promise<number[]> {
  using client = CountedClient.connect("tcp", namespace, host, port);
  const samples: number[] = [];
  const end = performance.now() + seconds * 1000;
  while (performance.now() < end) {
    const slice = performance.now() + SLICE_MS;
    while (performance.now() < slice) {
      const begun = performance.now();
      client.send(MESSAGE);
      client.receiveAll(MESSAGE.length);
      samples.push(performance.now() - begun);
    }
    await delay(0);
    signal.throwIfAborted();
  }
  return samples;
}
