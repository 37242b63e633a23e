import assert from "node:assert/strict";
import { MOST_SESSION_KEYS, SESSION_KEY_LIFE_MS, SessionKeys } from "./session_keys.ts";

const newKey = (identity: string) => ({ identity, key: new Uint8Array(32).fill(7) });

Deno.test("a key is found until it was used, once", () => {
  const keys = new SessionKeys();
  const key = newKey("a");
  assert.ok(keys.add(key, 0));
  assert.equal(keys.find("a", 1), key);
  assert.equal(keys.find("a", 2), key, "a handshake that fails takes nothing away");
  assert.equal(keys.find("b", 2), undefined);
  keys.use("b");
  keys.use("a");
  assert.equal(keys.find("a", 3), undefined);
  assert.deepEqual(key.key, new Uint8Array(32), "nothing of it is left in memory");
});

Deno.test("a key that nobody uses is gone after a minute", () => {
  const keys = new SessionKeys();
  const [early, late] = [newKey("early"), newKey("late")];
  keys.add(early, 1000);
  keys.add(late, 1001);
  const end = 1000 + SESSION_KEY_LIFE_MS;
  assert.equal(keys.find("early", end - 1), early);
  assert.equal(keys.find("early", end), undefined);
  assert.equal(keys.find("late", end), late);
  assert.deepEqual(early.key, new Uint8Array(32));
  assert.equal(keys.count(end), 1);
  assert.equal(keys.count(end + 1), 0);
});

Deno.test("so many are known at once, and a name stands for one of them", () => {
  const keys = new SessionKeys();
  for (let i = 0; i < MOST_SESSION_KEYS; i++) {
    assert.ok(keys.add(newKey(`key-${i}`), i));
    if (i === 0) assert.ok(!keys.add(newKey("key-0"), i));
  }
  assert.ok(!keys.add(newKey("more"), 100));
  assert.equal(keys.find("more", 100), undefined);
  keys.use("key-3");
  assert.ok(keys.add(newKey("more"), 101));
  assert.ok(!keys.add(newKey("even-more"), SESSION_KEY_LIFE_MS - 1));
  // The first is gone by then.
  assert.ok(keys.add(newKey("even-more"), SESSION_KEY_LIFE_MS));
});
