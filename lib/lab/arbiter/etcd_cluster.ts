/** A real etcd of three members on loopback, each of which can be killed, stopped and started again. */
import { ensureTool } from "../provision/tools.ts";
import { until } from "../program/until.ts";
import { atExit, WorkFolder } from "../program/work_folder.ts";

interface Member {
  readonly name: string;
  readonly clientPort: number;
  readonly peerPort: number;
  child: Deno.ChildProcess | undefined;
}

/** Where the cluster's parts come from, and what is to be different in it. */
export interface EtcdOptions {
  readonly members?: number;
  readonly signal?: AbortSignal;
  /** Further arguments of each member, such as a quota. */
  readonly args?: readonly string[];
}

export class EtcdCluster implements AsyncDisposable {
  readonly #members: readonly Member[];
  readonly #folder: WorkFolder;
  readonly #program: string;
  readonly #args: readonly string[];
  readonly #forget: () => void;

  private constructor(
    members: readonly Member[],
    folder: WorkFolder,
    program: string,
    args: readonly string[],
  ) {
    this.#members = members;
    this.#folder = folder;
    this.#program = program;
    this.#args = args;
    this.#forget = atExit(() => members.forEach((_, i) => this.kill(i)));
  }

  /** Starts a cluster, and waits until it has a leader. */
  static async start(options: EtcdOptions = {}): Promise<EtcdCluster> {
    const program = await ensureTool("etcd", { signal: options.signal });
    const ports = freePorts(2 * (options.members ?? 3));
    const members = Array.from({ length: options.members ?? 3 }, (_, i): Member => ({
      name: `m${i}`,
      clientPort: ports[2 * i],
      peerPort: ports[2 * i + 1],
      child: undefined,
    }));
    const cluster = new EtcdCluster(members, new WorkFolder(), program, options.args ?? []);
    try {
      members.forEach((_, i) => cluster.startMember(i));
      await cluster.healthy(options.signal);
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
    return cluster;
  }

  /** The members' client addresses, as `--arbiter etcd:` has them. */
  get urls(): string[] {
    return this.#members.map(({ clientPort }) => `http://127.0.0.1:${clientPort}`);
  }

  /** Starts a member, with what it had on its disk. */
  startMember(i: number): void {
    const member = this.#members[i];
    const peers = this.#members.map((each) => `${each.name}=${peerUrl(each)}`).join(",");
    const client = `http://127.0.0.1:${member.clientPort}`;
    member.child = new Deno.Command(this.#program, {
      args: [
        `--name=${member.name}`,
        `--data-dir=${this.#folder.path}/${member.name}`,
        `--listen-client-urls=${client}`,
        `--advertise-client-urls=${client}`,
        `--listen-peer-urls=${peerUrl(member)}`,
        `--initial-advertise-peer-urls=${peerUrl(member)}`,
        `--initial-cluster=${peers}`,
        "--logger=zap",
        "--log-level=error",
        ...this.#args,
      ],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
  }

  /** Kills a member: its host has died. */
  async kill(i: number): Promise<void> {
    const { child } = this.#members[i];
    this.#members[i].child = undefined;
    if (child === undefined) return;
    try {
      child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await child.status;
  }

  /** Which member leads; undefined while there is none. */
  async leader(): Promise<number | undefined> {
    const answers = await Promise.all(this.#members.map(async (member, i) => {
      const status = member.child && await statusOf(member);
      return status && status.leader === status.header.member_id ? i : undefined;
    }));
    return answers.find((i) => i !== undefined);
  }

  /** Waits until the cluster has a leader. */
  async healthy(signal?: AbortSignal): Promise<void> {
    await until(async () => await this.leader() !== undefined, "etcd's leader", { signal });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#forget();
    await Promise.all(this.#members.map((_, i) => this.kill(i)));
    this.#folder[Symbol.dispose]();
  }
}

function peerUrl(member: Member): string {
  return `http://127.0.0.1:${member.peerPort}`;
}

interface MemberStatus {
  readonly header: { readonly member_id: string };
  readonly leader?: string;
}

async function statusOf(member: Member): Promise<MemberStatus | undefined> {
  try {
    const response = await fetch(`http://127.0.0.1:${member.clientPort}/v3/maintenance/status`, {
      method: "POST",
      body: "{}",
      signal: AbortSignal.timeout(1000),
    });
    return response.ok ? await response.json() : void await response.body?.cancel();
  } catch {
    return undefined;
  }
}

/** Ports that nobody listens at now. */
function freePorts(count: number): number[] {
  const listeners = Array.from(
    { length: count },
    () => Deno.listen({ hostname: "127.0.0.1", port: 0 }),
  );
  const ports = listeners.map((listener) => listener.addr.port);
  for (const listener of listeners) listener.close();
  return ports;
}
