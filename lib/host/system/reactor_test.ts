import assert from "node:assert/strict";
import { InterruptedError } from "../../errors.ts";
import { errno, libc } from "./libc.ts";
import { ERRNO, O_CLOEXEC, O_NONBLOCK } from "./linux.ts";
import { Reactor } from "./reactor.ts";
import { never } from "./never.ts";

/** A pipe that is closed with the test. */
class Pipe implements Disposable {
  readonly #fds = new Int32Array(2);
  constructor() {
    libc().pipe2(new Uint8Array(this.#fds.buffer), O_NONBLOCK | O_CLOEXEC);
  }
  get read(): number {
    return this.#fds[0];
  }
  get write(): number {
    return this.#fds[1];
  }
  put(count = 1): void {
    libc().write(this.write, new Uint8Array(count), BigInt(count));
  }
  /** Reads what is there, up to 64 KiB. */
  take(): number {
    const count = Number(libc().read(this.read, new Uint8Array(65536), 65536n));
    if (count < 0) assert.equal(errno(), ERRNO.EAGAIN);
    return count;
  }
  [Symbol.dispose](): void {
    libc().close(this.read);
    libc().close(this.write);
  }
}

async function withReactor(body: (reactor: Reactor) => Promise<void>) {
  const reactor = new Reactor();
  try {
    await body(reactor);
  } finally {
    reactor.close();
  }
}

Deno.test("timers fire in order of time, once, unless called off", () =>
  withReactor(async (reactor) => {
    const fired: string[] = [];
    reactor.after(30, () => fired.push("30"));
    reactor.after(5, () => fired.push("5"));
    const cancel = reactor.after(10, () => fired.push("10"));
    cancel();
    cancel();
    let rounds = 0;
    const stop = reactor.every(4, () => {
      if (++rounds === 3) stop();
    });
    await reactor.run(() => fired.length === 2 && rounds === 3, never);
    await reactor.sleep(20, never);
    assert.deepEqual([fired, rounds], [["5", "30"], 3]);
  }));

Deno.test("a timer that sets another one does not keep descriptors waiting", () =>
  withReactor(async (reactor) => {
    using pipe = new Pipe();
    let heard = false;
    let chained = 0;
    const again = () => {
      chained++;
      reactor.after(0, again);
    };
    again();
    reactor.watch(pipe.read, { readable: () => heard = pipe.take() > 0 }).want(true, false);
    reactor.after(10, () => pipe.put());
    await reactor.run(() => heard, never);
    assert.ok(chained > 1);
  }));

/**
 * Checks that what ends a run ends its sleep too, which would last for a second.
 *
 * @param end Is to end it, after a moment.
 */
async function endsSleep(end: (reactor: Reactor, pipe: Pipe) => Promise<unknown>): Promise<void> {
  // Of a sleep that nobody ends nearly all is left each time; a busy machine may have a long pause once.
  for (let tries = 1, waitedMs = Infinity; waitedMs > 700; tries++) {
    assert.ok(tries <= 5, `it comes after ${waitedMs} ms, at the end of a sleep`);
    await withReactor(async (reactor) => {
      using pipe = new Pipe();
      const begun = performance.now();
      await end(reactor, pipe);
      waitedMs = performance.now() - begun;
    });
  }
}

Deno.test("wake, fail and abort end a sleep at once, hot or cold", async () => {
  for (const quietMs of [1, 80]) {
    await endsSleep(async (reactor) => {
      let woken = false;
      setTimeout(() => {
        woken = true;
        reactor.wake();
      }, quietMs);
      await reactor.run(() => woken, never);
    });
    await endsSleep(async (reactor) => {
      setTimeout(() => reactor.fail(new InterruptedError("from outside")), quietMs);
      await assert.rejects(reactor.run(() => false, never), /from outside/);
    });
    await endsSleep(async (reactor) => {
      const controller = new AbortController();
      setTimeout(() => controller.abort(new InterruptedError("by signal")), quietMs);
      await assert.rejects(reactor.run(() => false, controller.signal), /by signal/);
    });
  }
});

Deno.test("what a task asks for while the loop sleeps is there when it is due", async () => {
  const asks: readonly ((reactor: Reactor, pipe: Pipe, happen: () => void) => void)[] = [
    (reactor, _pipe, happen) => reactor.after(0, happen),
    (reactor, pipe, happen) => reactor.watch(pipe.write, { writable: happen }).want(false, true),
  ];
  for (const ask of asks) {
    await endsSleep(async (reactor, pipe) => {
      let happened = false;
      // From here on sleeps are long, and the runtime's.
      const done = reactor.awaitRuntime();
      setTimeout(() => ask(reactor, pipe, () => happened = true), 5);
      await reactor.run(() => happened, never);
      done();
    });
  }
});

Deno.test("what a handler throws ends run(), and the loop can run again", () =>
  withReactor(async (reactor) => {
    using pipe = new Pipe();
    let calls = 0;
    const watch = reactor.watch(pipe.read, {
      readable: () => {
        pipe.take();
        if (++calls === 1) throw new InterruptedError("thrown by a handler");
      },
    });
    watch.want(true, false);
    pipe.put();
    await assert.rejects(reactor.run(() => false, never), /thrown by a handler/);
    pipe.put();
    await reactor.run(() => calls === 2, never);
  }));

Deno.test("many descriptors: each gets its own events, more can join, and any can leave", () =>
  withReactor(async (reactor) => {
    const pipes = Array.from({ length: 200 }, () => new Pipe());
    try {
      const counts = pipes.map(() => 0);
      const watches = pipes.map((pipe, i) =>
        reactor.watch(pipe.read, {
          readable: () => {
            counts[i] += pipe.take();
            // A neighbour that leaves in the same round is not called any more.
            if (i % 10 === 0) watches[i + 1].stop();
          },
        })
      );
      watches.forEach((watch) => watch.want(true, false));
      pipes.forEach((pipe) => pipe.put(3));
      await reactor.run(() => counts.filter((count) => count === 3).length >= 180, never);
      counts.forEach((count, i) => assert.equal(count, i % 10 === 1 ? 0 : 3, `pipe ${i}`));
    } finally {
      pipes.forEach((pipe) => pipe[Symbol.dispose]());
    }
  }));

Deno.test("a hang-up is told to those who wait, and does not spin for those who do not", () =>
  withReactor(async (reactor) => {
    using pipe = new Pipe();
    let ended = 0;
    const watch = reactor.watch(pipe.read, {
      readable: () => {
        if (pipe.take() === 0) ended++;
        watch.want(false, false);
      },
    });
    watch.want(true, false);
    libc().close(pipe.write);
    await reactor.run(() => ended === 1, never);
    await reactor.sleep(30, never);
    assert.equal(ended, 1);
  }));

Deno.test("the runtime gets its turn while descriptors keep the loop busy", () =>
  withReactor(async (reactor) => {
    using pipe = new Pipe();
    let timerMs = 0;
    const startedMs = performance.now();
    setTimeout(() => timerMs = performance.now() - startedMs, 5);
    // Always readable: nobody takes the byte.
    reactor.watch(pipe.read, { readable: () => {} }).want(true, false);
    pipe.put();
    await reactor.run(() => timerMs > 0, never);
    assert.ok(timerMs < 5000, `it had its turn after ${timerMs} ms`);
  }));

Deno.test("a closed loop may be woken, failed and closed again", async () => {
  const reactor = new Reactor();
  reactor.close();
  using pipe = new Pipe();
  // The pipe has the numbers that the loop's own descriptors had.
  reactor.wake();
  reactor.fail(new InterruptedError("late"));
  reactor.close();
  assert.equal(pipe.take(), -1);
  await Promise.resolve();
});

Deno.test("during() passes a task's result or error on, and goes on serving", () =>
  withReactor(async (reactor) => {
    using pipe = new Pipe();
    let heard = 0;
    reactor.watch(pipe.read, { readable: () => heard += pipe.take() }).want(true, false);
    pipe.put();
    const later = new Promise<string>((resolve) => setTimeout(() => resolve("done"), 40));
    assert.equal(await reactor.during(later, never), "done");
    assert.equal(heard, 1);
    const failing = Promise.reject(new InterruptedError("no"));
    await assert.rejects(reactor.during(failing, never), /no/);
  }));

Deno.test("a failure that is forgotten does not end the next run", async () => {
  const reactor = new Reactor();
  try {
    reactor.fail(new Error("of a session that is over"));
    reactor.forgetFailure();
    let done = false;
    reactor.after(1, () => done = true);
    await reactor.run(() => done, never);
    reactor.fail(new Error("of this one"));
    await assert.rejects(reactor.run(() => false, never), /of this one/);
  } finally {
    reactor.close();
  }
});

Deno.test("a handler that fails in each turn keeps neither the others nor the timers waiting", () =>
  withReactor(async (reactor) => {
    using broken = new Pipe();
    using mute = new Pipe();
    using sound = new Pipe();
    broken.put();
    mute.put();
    sound.put();
    const fail = (name: string) => () => {
      throw name;
    };
    reactor.watch(broken.read, { readable: fail("broken") }).want(true, false);
    reactor.watch(mute.read, { readable: fail("mute") }).want(true, false);
    let heard = 0;
    reactor.watch(sound.read, { readable: () => heard += sound.take() }).want(true, false);
    let isLate = false;
    reactor.after(1, () => isLate = true);
    const failures: unknown[] = [];
    await reactor.runOn(() => heard === 1 && isLate || failures.length > 100, (failure) => {
      failures.push(failure);
    });
    assert.deepEqual([heard, isLate], [1, true]);
    assert.ok(failures.includes("broken") && failures.includes("mute"), `${failures}`);
  }));

Deno.test("what has to come to its end outlives the failures of others, which are told", () =>
  withReactor(async (reactor) => {
    const failures: unknown[] = [];
    const { promise, resolve } = Promise.withResolvers<string>();
    reactor.fail("before");
    reactor.after(1, () => {
      reactor.after(1, () => resolve("done"));
      throw "in between";
    });
    assert.equal(await reactor.seeThrough(promise, (failure) => failures.push(failure)), "done");
    assert.deepEqual(failures, ["before", "in between"]);
    const refused = reactor.seeThrough(Promise.reject("its own"), () => {});
    await assert.rejects(refused, (error) => error === "its own");
    reactor.fail("enough");
    const ended = reactor.runOn(() => false, (failure) => {
      throw failure;
    });
    await assert.rejects(ended, (error) => error === "enough");
  }));
