import {
  MADV_HUGEPAGE,
  MADV_POPULATE_WRITE,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  PROT_READ,
  PROT_WRITE,
} from "../lib/host/system/linux.ts";
const SYMBOLS = {
  mmap: { parameters: ["usize", "usize", "i32", "i32", "i32", "i64"], result: "pointer" },
  madvise: { parameters: ["pointer", "usize", "i32"], result: "i32", nonblocking: true },
  munmap: { parameters: ["pointer", "usize"], result: "i32" },
} as const;

/**
 * Touches memory and gives it back, so that the next process to allocate it gets it at once.
 *
 * On a virtual machine whose host takes free memory back (free page reporting, ballooning), the
 * first touch of a page waits for that host: measured here 2.4–2.9 s per GiB, against 0.1 s for
 * memory that was in use a second ago. Without this function that time would be most of the stream
 * benchmark's result, which would then depend on the machine's last minutes rather than on kemari.
 * Huge pages are touched, since kemari asks for those; small pages given back do not become huge
 * pages at once.
 */
export async function warmMemory(bytes: number): Promise<void> {
  const libc = Deno.dlopen("libc.so.6", SYMBOLS);
  const { mmap, madvise, munmap } = libc.symbols;
  const size = BigInt(bytes);
  const memory = mmap(0n, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0n);
  try {
    if (memory === null || BigInt.asIntN(64, Deno.UnsafePointer.value(memory)) === -1n) return;
    await madvise(memory, size, MADV_HUGEPAGE);
    // Kernels before 5.14 do not support this: then the samples include that time.
    await madvise(memory, size, MADV_POPULATE_WRITE);
  } finally {
    munmap(memory, size);
    libc.close();
  }
}
