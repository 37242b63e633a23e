/** Web-like load: a few clients, each of which requests the next page when it has got the last. */
import { delay } from "../lib/host/system/delay.ts";

/** A line of the client's report. */
export interface WebReport {
  /** ms since the epoch. */
  readonly atMs: number;
  /** Times of the requests that were answered since the last line, in ms. */
  readonly latencyMs: readonly number[];
  readonly failures: number;
}

const CLIENTS = 4;
const REPORT_MS = 100;
const MAX_ANSWER_BYTES = 1 << 20;
/** Wait after a failure: a guest that is being set up refuses connections for a moment. */
const RETRY_MS = 50;

/** `kemari bench-client HOST PORT`, outside of the guest, until stdin ends. */
export async function runWebClient(
  hostname: string,
  port: number,
  say: (line: string) => void,
): Promise<void> {
  let latencyMs: number[] = [];
  let failures = 0;
  let stopping = false;
  const report = () => {
    const line: WebReport = { atMs: Date.now(), latencyMs, failures };
    say(JSON.stringify(line) + "\n");
    latencyMs = [];
    failures = 0;
  };
  const timer = setInterval(report, REPORT_MS);
  const client = async () => {
    while (!stopping) {
      const begun = performance.now();
      try {
        await request(hostname, port);
        latencyMs.push(performance.now() - begun);
      } catch {
        failures++;
        await delay(RETRY_MS);
      }
    }
  };
  const clients = Array.from({ length: CLIENTS }, client);
  for await (const _ of Deno.stdin.readable);
  stopping = true;
  await Promise.all(clients);
  clearInterval(timer);
  report();
}

/** One GET over a connection of its own, as busybox's server wants it. */
async function request(hostname: string, port: number): Promise<void> {
  using connection = await Deno.connect({ hostname, port });
  await connection.write(new TextEncoder().encode("GET / HTTP/1.0\r\n\r\n"));
  const buffer = new Uint8Array(16384);
  let head = "";
  let bytes = 0;
  for (;;) {
    const count = await connection.read(buffer);
    if (count === null) break;
    if (bytes === 0) head = new TextDecoder().decode(buffer.subarray(0, Math.min(count, 64)));
    bytes += count;
    if (bytes > MAX_ANSWER_BYTES) throw new Error("an answer without end");
  }
  if (!/^HTTP\/1\.\d 200 /.test(head)) throw new Error(`answered ${head.split("\r")[0]}`);
}

/** The number of clients. */
export const WEB_CLIENTS = CLIENTS;
