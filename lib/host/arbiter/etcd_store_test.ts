/** What etcd's gateway may answer, good and bad, from a server that says what it is told to. */
import assert from "node:assert/strict";
import { aloneAfter, encodeRegister, type Register } from "../../arbiter/register.ts";
import { EtcdStore } from "./etcd_store.ts";

const a = { name: "a", instance: "000000000000000a" };
const FROM: Register = { state: "alone", vm: "vm", generation: 1, side: a };
const TO = aloneAfter(FROM, a);
const KEY = "kemari/vm";
const NEVER = new AbortController().signal;
const SWAP = { do: "swap", from: FROM, to: TO } as const;
const base64 = (text: string) => new TextEncoder().encode(text).toBase64();
const held = (text: string, key = KEY) => ({
  kvs: [{ key: base64(key), value: base64(text) }],
  count: "1",
});

type Handler = (
  path: string,
  body: Record<string, unknown>,
  headers: Headers,
) => Response | Promise<Response>;

function json(body: unknown, status = 200): Response {
  return new Response(JSON.stringify(body), { status });
}

/** Calls with a store whose members answer with these. */
async function withStore(
  handlers: readonly Handler[],
  use: (store: EtcdStore) => Promise<void>,
  login?: { user: string; password: string },
): Promise<void> {
  const servers = handlers.map((handler) =>
    Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
      const body = await request.json();
      return await handler(new URL(request.url).pathname, body, request.headers);
    })
  );
  const urls = servers.map((server) => `http://127.0.0.1:${(server.addr as Deno.NetAddr).port}`);
  const store = new EtcdStore({ name: "etcd:test", urls, key: KEY, login, memberMs: 300 });
  try {
    await use(store);
  } finally {
    store.close();
    await Promise.all(servers.map((server) => server.shutdown()));
  }
}

Deno.test("a swap is etcd's own transaction: compare the value, put, or else say what is there", async () => {
  await withStore([(path, body) => {
    assert.equal(path, "/v3/kv/txn");
    assert.deepEqual(body, {
      compare: [{
        key: base64(KEY),
        target: "VALUE",
        result: "EQUAL",
        value: base64(encodeRegister(FROM)),
      }],
      success: [{ requestPut: { key: base64(KEY), value: base64(encodeRegister(TO)) } }],
      failure: [{ requestRange: { key: base64(KEY) } }],
    });
    return json({ header: {}, succeeded: true, responses: [{ response_put: {} }] });
  }], async (store) => {
    assert.deepEqual(await store.ask(SWAP, NEVER), { is: "won" });
  });
});

Deno.test("the first register is put only where there is none", async () => {
  await withStore([(_path, body) => {
    const [compare] = body.compare as Record<string, unknown>[];
    assert.deepEqual(compare, {
      key: base64(KEY),
      target: "CREATE",
      result: "EQUAL",
      createRevision: "0",
    });
    return json({ header: {}, succeeded: true });
  }], async (store) => {
    assert.deepEqual(await store.ask({ ...SWAP, from: undefined }, NEVER), { is: "won" });
  });
});

const ANSWERS: readonly (readonly [string, () => Response, object])[] = [
  [
    "a swap that was done before",
    () => json({ header: {}, responses: [{ response_range: held(encodeRegister(TO)) }] }),
    { is: "won" },
  ],
  [
    "another register",
    () => json({ header: {}, responses: [{ response_range: held(encodeRegister(FROM)) }] }),
    { is: "current", register: FROM },
  ],
  [
    "no register",
    () => json({ header: {}, responses: [{ response_range: { header: {} } }] }),
    { is: "current", register: undefined },
  ],
  [
    "another program's value",
    () => json({ header: {}, responses: [{ response_range: held("leader") }] }),
    { is: "foreign" },
  ],
  [
    "a register of a later format",
    () => json({ header: {}, responses: [{ response_range: held('{"kemari":2}') }] }),
    { is: "foreign" },
  ],
  [
    "another key",
    () => json({ header: {}, responses: [{ response_range: held(encodeRegister(TO), "x") }] }),
    { is: "unknown" },
  ],
  ["no header", () => json({ succeeded: true }), { is: "unknown" }],
  ["JSON of another kind", () => json([1]), { is: "unknown" }],
  ["success that is no boolean", () => json({ header: {}, succeeded: "yes" }), { is: "unknown" }],
  ["failure that says nothing", () => json({ header: {} }), { is: "unknown" }],
  ["a proxy's page", () => new Response("<html>502</html>", { status: 502 }), { is: "unknown" }],
  ["a page with status 200", () => new Response("<html>hi</html>"), { is: "unknown" }],
  ["too much", () => new Response("x".repeat(100_000)), { is: "unknown" }],
  [
    "a store without room",
    () => json({ error: "etcdserver: mvcc: database space exceeded", code: 8 }, 500),
    { is: "unknown" },
  ],
  ["no leader", () => json({ message: "etcdserver: no leader", code: 14 }, 503), { is: "unknown" }],
  [
    "a redirect",
    () => new Response(null, { status: 302, headers: { location: "http://127.0.0.1:1/" } }),
    { is: "unknown" },
  ],
];

for (const [of, respond, expected] of ANSWERS) {
  Deno.test(`etcd's answer: ${of}`, async () => {
    await withStore([respond], async (store) => {
      const answer = await store.ask(SWAP, NEVER);
      assert.deepEqual({ ...answer, why: undefined }, { ...expected, why: undefined });
      if (answer.is === "unknown" || answer.is === "foreign") assert.ok(answer.why.length > 5);
    });
  });
}

Deno.test("a member that does not answer is passed over, and asked last from then on", async () => {
  const asked: number[] = [];
  const never = Promise.withResolvers<Response>();
  await withStore([
    () => (asked.push(0), never.promise),
    () => (asked.push(1), new Response("no", { status: 500 })),
    () => (asked.push(2), json({ header: {}, ...held(encodeRegister(FROM)) })),
  ], async (store) => {
    assert.deepEqual(await store.ask({ do: "read" }, NEVER), { is: "current", register: FROM });
    assert.deepEqual(await store.ask({ do: "read" }, NEVER), { is: "current", register: FROM });
    assert.deepEqual(asked, [0, 1, 2, 2]);
    never.resolve(json({}));
  });
});

Deno.test("where nobody answers, each member's reason is told", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  const url = `http://127.0.0.1:${port}`;
  const store = new EtcdStore({ name: "etcd:test", urls: [url, url], key: KEY });
  const answer = await store.ask({ do: "read" }, NEVER);
  assert.ok(answer.is === "unknown");
  assert.equal(answer.why.split("; ").length, 2);
  assert.match(answer.why, new RegExp(`${url}: .*refused`));
  store.close();
});

Deno.test("who interrupts is heard at once", async () => {
  const never = Promise.withResolvers<Response>();
  await withStore([() => never.promise], async (store) => {
    const controller = new AbortController();
    const answer = store.ask({ do: "read" }, controller.signal);
    controller.abort(new Error("interrupted"));
    await assert.rejects(answer, /interrupted/);
    never.resolve(json({}));
  });
});

Deno.test("a user's token is asked for once, and again when it has grown old", async () => {
  let tokens = 0;
  const paths: string[] = [];
  await withStore(
    [(path, body, headers) => {
      paths.push(path);
      if (path === "/v3/auth/authenticate") {
        assert.deepEqual(body, { name: "kemari", password: "pass:word" });
        return json({ header: {}, token: `t${++tokens}` });
      }
      if (headers.get("authorization") !== `t${tokens}` || paths.length === 4) {
        return json({ error: "etcdserver: invalid auth token", code: 16 }, 401);
      }
      return json({ header: {}, ...held(encodeRegister(FROM)) });
    }],
    async (store) => {
      for (let i = 0; i < 3; i++) {
        assert.deepEqual(await store.ask({ do: "read" }, NEVER), { is: "current", register: FROM });
      }
      assert.equal(tokens, 2);
    },
    { user: "kemari", password: "pass:word" },
  );
});

Deno.test("a wrong password is no answer, and is not told", async () => {
  await withStore(
    [() => json({ error: "etcdserver: authentication failed", code: 3 }, 400)],
    async (store) => {
      const answer = await store.ask({ do: "read" }, NEVER);
      assert.ok(answer.is === "unknown");
      assert.match(answer.why, /authentication failed/);
      assert.doesNotMatch(answer.why, /secret/);
    },
    { user: "kemari", password: "secret" },
  );
});
