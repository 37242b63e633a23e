/**
 * The register in etcd: one key, changed by etcd's own transactions (a comparison of the key's
 * value, then a put), which are decided by its members' majority. Requests go to the JSON gateway
 * that each member has.
 *
 * Everything but a valid answer of etcd (a refused connection, a proxy's page, silence, a store
 * without a leader or without room) is `unknown`, and the next member is asked: if the first member
 * has made the swap nevertheless, the next finds it done.
 *
 * @see etcd's documentation, "gRPC gateway", and its rpc.proto: Txn, Range, Authenticate.
 */
import type { Answer, Ask } from "../../arbiter/claim.ts";
import { decodeRegister, encodeRegister, isEqual, type Register } from "../../arbiter/register.ts";
import { KemariError } from "../../errors.ts";
import type { ArbiterStore } from "./arbiter_store.ts";

/** The longest answer that is read, in bytes; an answer with a register has a few hundred. */
const MAX_ANSWER_BYTES = 64 * 1024;
/**
 * How long each member may take. After a leader's death the others elect a new leader within about
 * a second.
 */
const MEMBER_MS = 2000;

export interface EtcdSettings {
  readonly name: string;
  readonly urls: readonly string[];
  /** The register's key. */
  readonly key: string;
  readonly login?: { readonly user: string; readonly password: string };
  /** PEM texts, for https. */
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string };
  /** How long each member may take to answer, in milliseconds. */
  readonly memberMs?: number;
}

/** Parts of a member's answer. */
type Reply =
  | { readonly is: "json"; readonly body: Record<string, unknown> }
  | { readonly is: "unauthenticated" }
  | { readonly is: "unknown"; readonly why: string };

export class EtcdStore implements ArbiterStore {
  readonly name: string;
  readonly #settings: EtcdSettings;
  readonly #client: Deno.HttpClient | undefined;
  readonly #key: string;
  /** The member that answered last is asked first. */
  #first = 0;
  #token: string | undefined;

  constructor(settings: EtcdSettings) {
    this.name = settings.name;
    this.#settings = settings;
    this.#key = base64(settings.key);
    const { tls } = settings;
    if (tls === undefined) return;
    const { ca, cert, key } = tls;
    this.#client = Deno.createHttpClient({
      ...(ca === undefined ? {} : { caCerts: [ca] }),
      ...(cert === undefined || key === undefined ? {} : { cert, key }),
    });
  }

  async ask(ask: Ask, signal: AbortSignal): Promise<Answer> {
    const { urls } = this.#settings;
    const whys: string[] = [];
    for (let i = 0; i < urls.length; i++) {
      const at = (this.#first + i) % urls.length;
      const reply = await this.#request(urls[at], ask, signal);
      if (reply.is === "json") {
        const answer = this.#judge(reply.body, ask, urls[at]);
        if (answer.is !== "unknown") {
          this.#first = at;
          return answer;
        }
        whys.push(answer.why);
      } else {
        whys.push(reply.is === "unknown" ? reply.why : `${urls[at]}: the user is refused`);
      }
    }
    return { is: "unknown", why: whys.join("; ") };
  }

  close(): void {
    this.#client?.close();
  }

  async #request(url: string, ask: Ask, signal: AbortSignal): Promise<Reply> {
    const { login } = this.#settings;
    const send = () =>
      ask.do === "read"
        ? this.#post(url, "/v3/kv/range", { key: this.#key }, signal)
        : this.#post(url, "/v3/kv/txn", this.#transaction(ask), signal);
    if (login === undefined) return await send();
    if (this.#token !== undefined) {
      const reply = await send();
      // Tokens expire, and a member that was restarted knows none.
      if (reply.is !== "unauthenticated") return reply;
      this.#token = undefined;
    }
    const body = { name: login.user, password: login.password };
    const reply = await this.#post(url, "/v3/auth/authenticate", body, signal);
    if (reply.is !== "json") return reply;
    if (typeof reply.body.token !== "string" || /[^!-~]/.test(reply.body.token)) {
      return { is: "unknown", why: `${url}: what answers is not etcd` };
    }
    this.#token = reply.body.token;
    return await send();
  }

  #transaction(ask: Extract<Ask, { do: "swap" }>): unknown {
    const key = this.#key;
    return {
      compare: [
        ask.from === undefined
          ? { key, target: "CREATE", result: "EQUAL", createRevision: "0" }
          : { key, target: "VALUE", result: "EQUAL", value: base64(encodeRegister(ask.from)) },
      ],
      success: [{ requestPut: { key, value: base64(encodeRegister(ask.to)) } }],
      failure: [{ requestRange: { key } }],
    };
  }

  async #post(url: string, path: string, body: unknown, signal: AbortSignal): Promise<Reply> {
    const memberMs = this.#settings.memberMs ?? MEMBER_MS;
    const unknown = (why: string): Reply => ({ is: "unknown", why: `${url}: ${why}` });
    try {
      const response = await fetch(url + path, {
        method: "POST",
        body: JSON.stringify(body),
        headers: {
          "content-type": "application/json",
          ...(this.#token === undefined ? {} : { authorization: this.#token }),
        },
        redirect: "error",
        signal: AbortSignal.any([signal, AbortSignal.timeout(memberMs)]),
        ...(this.#client === undefined ? {} : { client: this.#client }),
      });
      const text = await readBounded(response);
      if (text === undefined) return unknown(`an answer of more than ${MAX_ANSWER_BYTES} bytes`);
      const json = parseObject(text);
      if (response.status === 401) return { is: "unauthenticated" };
      if (json === undefined) {
        return unknown(`what answers is not etcd (status ${response.status})`);
      }
      if (!response.ok) {
        if (json.code === 16) return { is: "unauthenticated" };
        return unknown(errorOf(json) ?? `status ${response.status}`);
      }
      return { is: "json", body: json };
    } catch (error) {
      signal.throwIfAborted();
      return unknown(reasonOf(error, memberMs));
    }
  }

  /** Parses etcd's answer; anything else is `unknown`. */
  #judge(body: Record<string, unknown>, ask: Ask, url: string): Answer {
    const strange: Answer = { is: "unknown", why: `${url}: what answers is not etcd` };
    if (!isObject(body.header)) return strange;
    if (ask.do === "read") return this.#current(body, strange);
    // The gateway leaves out false and empty fields.
    if (body.succeeded === true) return { is: "won" };
    if (body.succeeded !== undefined && body.succeeded !== false) return strange;
    const [only] = Array.isArray(body.responses) ? body.responses : [];
    const range = isObject(only) ? only.response_range ?? only.responseRange : undefined;
    if (!isObject(range)) return strange;
    const answer = this.#current(range, strange);
    return answer.is === "current" && isEqual(answer.register, ask.to) ? { is: "won" } : answer;
  }

  #current(range: Record<string, unknown>, strange: Answer): Answer {
    const { kvs } = range;
    if (kvs === undefined || Array.isArray(kvs) && kvs.length === 0) {
      return { is: "current", register: undefined };
    }
    const [only] = Array.isArray(kvs) && kvs.length === 1 ? kvs : [];
    if (!isObject(only) || only.key !== this.#key) return strange;
    const text = typeof only.value === "string" ? textOf(only.value) : undefined;
    if (text === undefined) {
      return { is: "foreign", why: "what is in the register is not kemari's" };
    }
    return registerAnswer(text);
  }
}

/** The answer for a register's text. */
export function registerAnswer(text: string): Answer {
  let register: Register;
  try {
    register = decodeRegister(text);
  } catch (error) {
    if (!(error instanceof KemariError)) throw error;
    return { is: "foreign", why: error.message };
  }
  return { is: "current", register };
}

function base64(text: string): string {
  return new TextEncoder().encode(text).toBase64();
}

function textOf(encoded: string): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.fromBase64(encoded));
  } catch {
    return undefined;
  }
}

async function readBounded(response: Response): Promise<string | undefined> {
  let lengthBytes = 0;
  const parts: Uint8Array<ArrayBuffer>[] = [];
  for await (const part of response.body ?? []) {
    lengthBytes += part.length;
    if (lengthBytes > MAX_ANSWER_BYTES) return undefined;
    parts.push(part);
  }
  return await new Blob(parts).text();
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** etcd's own words, such as "etcdserver: mvcc: database space exceeded". */
function errorOf(json: Record<string, unknown>): string | undefined {
  const { message, error } = json;
  const text = typeof message === "string" ? message : error;
  return typeof text === "string" ? JSON.stringify(text.slice(0, 200)) : undefined;
}

function reasonOf(error: unknown, memberMs: number): string {
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return `no answer within ${memberMs} ms`;
  }
  const { cause, message } = error as Error;
  return cause instanceof Error ? cause.message : message;
}
