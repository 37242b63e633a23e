/** What stands below the options in each command's help: examples and exit status. */
import { EXIT } from "../errors.ts";

/** A command's own words for the exit codes it can end with. */
type ExitStatus = Partial<Record<keyof typeof EXIT, string>>;

interface HelpText {
  readonly notes?: string;
  readonly examples: readonly string[];
  readonly exits: ExitStatus;
}

/** What TARGET and LISTEN may look like. */
const ADDRESSES = `Addresses:
  HOST:PORT, tcp:HOST:PORT   TCP; IPv6 in brackets: [2001:db8::1]:PORT, link-local [fe80::1%eth0]:PORT
  unix:PATH                  a Unix socket
  exec:CMD                   the stdin and stdout of a shell command, such as "ssh host kemari recv stdio: …"
  stdio:                     this process's own stdin and stdout (recv, with --exec)
  Durations are milliseconds unless they say ms, s, m or h; sizes take K, M, G or T (binary).`;

/** What --compress costs, and what it does. */
const COMPRESSION = `Compression:
  delta   a page sent before is sent as what changed in it, or not at all; then all is packed (zstd).
          Copies of pages take memory up to --delta-cache, and 4 bytes for each page of RAM.
  zstd    packed only. Packing takes up to 64 MiB at each end.
  auto    whichever of these, or none, commits soonest on this link, measured all the time.
  none    QEMU's own bytes, while QEMU still sends: on a link of 10 Gb/s that commits soonest.
  With --commit async it is done after the VM has been let go on. A secondary that cannot take
  packed frames gets them unpacked.`;

/** Which images are taken. */
const IMAGES = `Images:
  An image is a raw file or block device. One in another format (qcow2, vmdk, …) is refused, unless
  format=raw says that it is the guest's own data that looks like one: write it for disks whose first
  bytes the guest writes, such as LUKS. An image is locked as QEMU locks its own: QEMU, qemu-img and
  another kemari do not open it, and one that they have is refused. A shared image is for the two
  kemaris of one pair. A device that is mounted, or part of another device, is refused. So is a
  secondary whose replicated disk is the primary's own image, over NFS, a SAN or a second name: for
  the moment in which they look, the image has an attribute user.kemari.mark, and a file beside it.`;

/** What is done about disks. */
const DISKS = `Disks:
  A replicated disk is compared with the secondary's copy when a session begins, while the VM runs,
  and what differs is sent; until then the secondary cannot take over. Of each disk, writes wait for
  their transaction in memory. Above 32M a synchronization is asked for, above 128M the guest's
  requests wait for up to a quarter of a second (never for a commit, which a checkpoint would wait
  for in turn), and above 512M the secondary is given up. A write that a shared image refuses is
  reported and retried, and stays readable meanwhile. Where no secondary is there, the guest is told
  of the refusal. A full disk at the secondary ends the protection until it has room.`;

const COMMON_EXITS: ExitStatus = {
  usage: "the command line is wrong",
  bug: "a bug in kemari",
  interrupted: "SIGINT, SIGTERM or SIGHUP",
};

const CONNECTION = "a connection, file or process failed";

const TEXTS = {
  send: {
    notes: `${ADDRESSES}

QEMU:
  Without --qmp, a stream that breaks off is a loss, however its VM has ended. With it, the secondary
  is told where the VM was shut down, or where somebody has ended its migration and the VM is here.

${COMPRESSION}

${IMAGES}

${DISKS}`,
    examples: [
      `migrate "exec:kemari send secondary:4000"      # typed into QEMU's monitor`,
      `kemari send unix:/run/kemari.sock < vm.stream`,
      `kemari send "exec:ssh secondary kemari recv stdio: --exec ./start-vm" < vm.stream`,
    ],
    exits: {
      done:
        "the stream ended and the secondary has committed it; or, with --qmp, the VM was shut down",
      bytes: "the stream is at fault, or the secondary refused it",
      connection: "the secondary is lost or was never reached",
      qemu: "QEMU refused a QMP command",
    },
  },
  recv: {
    notes: `${ADDRESSES}

On loss:
  A stream that ends is a handover: the secondary activates. A connection that dies is a loss, and
  does not prove that the primary is dead. "activate" therefore needs --fence: a command that makes
  sure of it, or "none" if something else does. Without fencing both VMs may run at once.
  A VM that is shut down, sleeps, or whose protection is ended is no loss: the primary says so,
  nobody is fenced, nothing is started, and the replica is kept. Where a VM was shut down and nobody
  can come back (exec:, stdio:, or --on-loss exit), recv ends with 0.

Replay:
  What the primary may not have done is done again, at least once, before the VM goes on: net sends
  what the guest had said and was committed, disk writes what it wrote to a shared image. input gives
  the guest what the world sent to it since 100 ms before the last commit: without, a client's
  request that came then is answered when the client asks again, after 200 ms or more; with it, the
  guest may get a packet twice. none leaves it all away.

Whose replica:
  A recv keeps one VM's replica, known by the VM's UUID, or else its name (as QEMU has them, or as
  --vm at the sender says), or else by its QEMU process and devices. Another VM's sender is refused,
  and changes nothing. --replace lets one other VM in: the first that comes, until it has committed,
  and from then on the replica is that VM's. It ends with this process: leave it out of unit files.
  The replica lasts as long as this process, or its --ram-dir; whose disk a replicated disk's copy is
  stands in the image's attribute user.kemari.copy-of, until the VM runs on it.

${IMAGES}

Standby:
  --standby takes the primary's command line up to its last device, without -incoming. Its RAM back
  ends become files in --ram-dir (default: a folder in /dev/shm). It is checked before the first
  transaction is acknowledged, started again if it dies, and killed before a cold start replaces it:
  --exec if given, else the same command with -incoming fd:0, which needs the RAM a second time.
  Where the primary has other devices than before, it is checked again; if it lacks one, the sender
  is refused by the device's name, and what was acknowledged is kept. Without a standby that is a
  warning: the QEMU that is to take the VM over must have the device.

RAM files:
  Room for all of the guest's RAM is reserved in --ram-dir, which takes that much memory on a tmpfs,
  before anything is acknowledged. With --ram-reserve none a VM that has taken over dies where the
  file system is full. btrfs, ZFS and bcachefs write each page to a new place and may fill all the
  same; a file system that cannot reserve is refused.

Pipes:
  A QEMU with -incoming behind stdout, or started by --exec, is watched until it has let go of the
  stream and lives: if it ends instead, recv keeps a replica that is in --ram-dir, and ends with 5 (or,
  with --exec and --control, waits for another kemari failover). Its own words are on its stderr. What
  else is behind a pipe is not known to recv: in a shell script, set -o pipefail.`,
    examples: [
      `kemari recv 0.0.0.0:4000 | qemu-system-x86_64 … -incoming fd:0`,
      `kemari recv unix:/run/kemari.sock > vm.stream`,
      `kemari recv 0.0.0.0:4000 --on-loss activate --fence "…" \\
      --standby "qemu-system-x86_64 -machine q35 -m 4096 …same devices…"`,
      `kemari recv 0.0.0.0:4000 --ram-dir /dev/shm/vm --control /run/kemari.ctl > vm.stream`,
      `kemari recv 0.0.0.0:4000 --on-loss activate --fence "ipmitool … power off" \\
      --exec "qemu-system-x86_64 … -incoming fd:0"`,
    ],
    exits: {
      done:
        "activated: the whole stream has been written (with --exec, --standby: the QEMU's status); " +
        "or the VM was shut down at the primary",
      bytes: "the primary's bytes are at fault",
      connection: "the primary is lost (--on-loss exit), or fencing or writing failed",
      qemu:
        "the standby is not the primary's machine, or does not start; or the QEMU that was given " +
        "the VM did not load it",
    },
  },
  protect: {
    notes: `${ADDRESSES}

${COMPRESSION}

${IMAGES}

${DISKS}

QEMU:
  It is handed its end of the connection through its monitor, whichever user it runs as and whatever
  its sandbox forbids. A monitor over TCP takes no descriptor: then QEMU is told a path that it must
  be able to reach. A VM that does not run yet (-S, or paused) is waited for. Capabilities, parameters
  and the machine's suppress-vmdesc are changed while the VM is protected, and put back behind it.

Whose replica:
  The secondary is told which VM this is: by QEMU's -uuid, or else its -name; --vm NAME stands in for
  both. It refuses a VM that is not the one that it keeps (exit status 3), which no second try mends.
  A VM that has neither is known by its QEMU process, and by its machine, RAM, MAC addresses and disks.

Ends:
  Interrupt this command to end a protection (Ctrl-C, systemctl stop): the VM runs on here. When the VM
  is shut down, by its guest or by QEMU's quit or a signal, the secondary is told, starts nothing, and
  this command ends with 0. A guest that suspends itself is protected again when it wakes. Who ends
  QEMU's migration (migrate_cancel, x-colo-lost-heartbeat) finds the VM here, and protected again after
  a while; QEMU from 8 on cannot be protected again behind migrate_cancel until it is started anew.

After a takeover:
  The VM's disks and NICs are served by the kemari recv that took it over. --via asks that one to
  protect the VM again, towards a kemari recv on the repaired host. The protection lasts as long as
  this command; a disk is compared first, and only what differs is sent.`,
    examples: [
      `kemari protect secondary:4000 --qmp /run/vm/qmp.sock`,
      `kemari protect secondary:4000 --qmp /run/vm/qmp.sock --commit sync --on-secondary-loss stop`,
      `kemari protect secondary:4000 --qmp /run/vm/qmp.sock --compress delta --delta-cache 1G`,
      `kemari protect repaired:4000 --qmp /run/vm/qmp.sock --via /run/kemari-recv.ctl`,
    ],
    exits: {
      done: "the VM was shut down and the secondary knows it; or the VM was migrated elsewhere",
      bytes: "QEMU's stream is at fault, or the secondary refused it",
      connection:
        "QEMU has died; or the secondary was never there, is lost and not to be retried, or has " +
        "not acknowledged a shutdown",
      qemu: "this QEMU or this VM cannot be protected, or a command was refused",
    },
  },
  failover: {
    notes:
      `A replica may be known not to be its VM's last state: the primary has said that the VM goes on
there, or was shut down; the session was refused; or a sender came back and went before its first
transaction. Then what clients have seen since would be lost, and where the VM still runs there would
be two of it. So that is refused, unless --stale says that it is wanted: once the primary is known to
be dead.`,
    examples: ["kemari failover /run/kemari.ctl", "kemari failover /run/kemari.ctl --stale"],
    exits: {
      done: "activated: the stream has been written, or QEMU has taken it",
      bytes: "something else than kemari answered",
      connection: "nothing answers at the socket, or that end cannot take over",
      qemu: "the QEMU that was given the VM there did not load it",
    },
  },
  status: {
    examples: [
      "kemari status /run/kemari.ctl",
      "kemari status /run/kemari.ctl --json | jq .lastCommitted",
      "kemari status /run/kemari.ctl --watch",
    ],
    exits: {
      done: "the status was printed",
      bytes: "something else than kemari answered",
      connection: "nothing answers at the socket",
    },
  },
  inspect: {
    notes:
      `The file may hold several streams one after another, and COLO checkpoints. What precedes a
fault is printed; with --json the document is complete and tells the fault in .fault.`,
    examples: [
      "kemari inspect vm.stream",
      "kemari inspect vm.stream --fields | less",
      "kemari inspect vm.stream --json | jq '.streams[0].ramBlocks'",
      "zstd -dc vm.stream.zst | kemari inspect -",
    ],
    exits: {
      done: "the whole file was understood",
      bytes: "the file is no migration stream, a cut or a damaged one",
      connection: "the file cannot be read",
    },
  },
  doctor: {
    notes:
      `Without --qmp and --qemu it looks at KEMARI_QEMU, else at qemu-system-x86_64 on PATH, else at
what deno task setup has fetched. It starts that QEMU for a moment, without a guest. The VM behind
--qmp is only asked, and runs on undisturbed.`,
    examples: [
      "kemari doctor",
      "kemari doctor --qmp /run/vm/qmp.sock",
      "kemari doctor --qemu /usr/bin/qemu-system-x86_64 --json",
    ],
    exits: {
      done: "it can be protected",
      bytes: "what answers at the socket is not QMP",
      connection: "nothing answers at the QMP socket, or the QEMU does not start",
      qemu: "it cannot be protected, or there is no QEMU; the reasons are printed",
    },
  },
  drill: {
    notes: `Forms:
  client  Two hosts in network namespaces (needs root). A client outside keeps one TCP connection to a
          service in the guest, which writes each message to the protected disk. Checked: the same
          connection, every acknowledged message on disk and in memory once, a clean file system, the
          replica's disk against the primary's, and that no packet comes from both hosts.
  memory  The guest counts on its console and in memory. Checked: the count, a checksum over a
          large file in memory, the same boot. Only the primary's death.
  Where no QEMU can be had, a recorded one is replayed.

Faults:
  primary   the primary's QEMU and its kemari are killed (kill -9)
  sender    the primary's kemari alone is killed: its VM loses disk and NIC, and the other side goes on
  link      the cable between the hosts is cut, all processes live on: the primary must stop by itself
  receiver  the secondary is killed: the primary goes on, is protected again, and then is killed
  copy      the primary is killed during the first disk copy: the secondary must refuse to activate
  apply     the primary is killed while the secondary writes a transaction to its disk
  copy and apply need a replicated disk. Faults come at random moments. The primary dies in one of
  these phases: checkpoint (the VM stands still), in-flight (a transaction arrives), unreleased (one
  is committed, and its output not all out), idle; for these its kemari is frozen and looked at first,
  which makes the gap longer. unseen: at any moment, without a look: the one to measure gaps with.
  --seed chooses the same moments again, not what the VM does.
  With --boot once, the runs of a device model start from the saved state of a VM that has booted,
  except copy, whose disk is another one, and the form memory. Runs that --jobs lets go on at the same
  time need a core each and three times --memory, and slow each other down: measure gaps with one.
  The report's gap is the client's, from answer to answer; silent is the time from
  the guest's last TCP segment at one host to its first at the other, which may be one that is sent
  again before the VM runs there. Under TCG, a QEMU that has just taken over works slowly at first: its code is
  translated anew, and its first answer takes 150 ms longer or so, kemari or not.
  A run whose checks fail leaves its folder behind, and says where. Interrupted, a drill still reports
  the runs that were done.

Ping-pong:
  A host dies, the other takes over; the dead one comes back as the secondary with its old image,
  of which only what differs is copied; and so on, back and forth, always with the same client
  connection. Each takeover is reported as a run.

Device models:
  virtio (virtio-net, virtio-blk), e1000-ahci (e1000, SATA), virtio-scsi (virtio-net, virtio-scsi)`,
    examples: [
      "kemari drill",
      "kemari drill --runs 20 --json",
      "kemari drill --runs 1000 --seconds 1 --jobs 2 --json > drill.json",
      "kemari drill --fault all --devices all --seconds 1",
      "kemari drill --fault link --disk-mode shared --commit sync",
      "kemari drill --ping-pong 10",
      "kemari drill --standby warm --phase unseen --runs 20 --json",
      "kemari drill --form memory",
    ],
    exits: {
      done: "every check of every run held",
      bytes: "a check did not hold",
      connection: CONNECTION,
      qemu: "QEMU refused or could not be set up",
    },
  },
  bench: {
    notes: `Experiments:
  start      the executable's start
  bitmap     travelling a guest's dirty pages: byte per page against bit per page
  writev     a transaction to a socket: copied, or gathered
  stream     a plain stream through both ends, against socat and a pipe
  compress   what each --compress makes of checkpoints
  disk       the disk tap against nbdkit and QEMU's own file, with fio in the guest
  net        the net tap against QEMU straight on the bridge, and protected (needs root)
  iozone     file I/O in a guest, unprotected and protected in several ways
  traffic    what goes over the sync link, over time and of what kind, with each --compress
  syncs      synchronizations a second, pauses, commits and held output, against QEMU's COLO pair
  colo       checkpoints a second, pauses, and what QEMU keeps, against QEMU's own COLO pair; and
             with every QEMU, accelerator and mode
  compress-live on a real guest, over links of 1 and 10 Gb/s
  activation from fenced to running, warm against cold, and what the RAM's files cost
  soak       what grows over hundreds of thousands of checkpoints; only when it is named
They run one after another; "all" uses the quick settings unless --full is said. One that
fails does not keep the others from running. Ctrl-C leaves in --out what was measured until then.`,
    examples: [
      "kemari bench",
      "kemari bench stream --quick --json > samples.json",
      "kemari bench all --out report",
      "kemari bench iozone --link 1G,10G --record-sizes 4K,64K --file-size 16M --rounds 5",
      "kemari bench traffic syncs --link 1G --seconds 10 --out report",
      "kemari bench compare report-of-yesterday report",
    ],
    exits: {
      done: "every experiment ran",
      bytes: "a stream was at fault",
      connection: CONNECTION,
      qemu: "QEMU refused or could not be set up",
    },
  },
  benchCompare: {
    notes:
      `A and B are a run's bench.json, or the folder that --out named. A quantity has changed when
its samples are ranked apart beyond chance (Mann–Whitney, p < 0.05) and its medians differ by more
than 3 % and than both sides' spreads together. Runs of different machines, kernels, QEMUs, links or
settings are not compared; different commits are.`,
    examples: [
      "kemari bench compare before/ after/",
      "kemari bench compare before/bench.json after/bench.json stream --json",
    ],
    exits: {
      done: "compared, whether anything changed or not",
      usage: "a file is no result, or the runs were made under different conditions",
      connection: "a file cannot be read",
    },
  },
} satisfies Record<string, HelpText>;

/** The commands that have a help text: all of them. */
export type CommandName = keyof typeof TEXTS;

/** `Exit status:` with one line a code, in the order of the codes. */
function sayExits(exits: ExitStatus): string {
  const said: ExitStatus = { ...COMMON_EXITS, ...exits };
  const names = Object.keys(EXIT) as (keyof typeof EXIT)[];
  const lines = names.filter((name) => said[name] !== undefined)
    .map((name) => `  ${String(EXIT[name]).padEnd(5)}${said[name]}`);
  return `Exit status:\n${lines.join("\n")}`;
}

/** The text below a command's options. */
export function helpAfter(name: CommandName): string {
  const text: HelpText = TEXTS[name];
  const examples = `Examples:\n${text.examples.map((example) => `  ${example}`).join("\n")}`;
  const parts = [text.notes, examples, sayExits(text.exits)];
  return "\n" + parts.filter((part) => part !== undefined).join("\n\n");
}

/** The text below the list of commands. */
export const PROGRAM_HELP_AFTER = `
Two ends of a pipe:
  secondary$ kemari recv 0.0.0.0:4000 | qemu-system-x86_64 … -incoming fd:0
  primary$   echo 'migrate "exec:kemari send secondary:4000"' | …QEMU's monitor…

${
  sayExits({
    done: "done",
    bytes: "the bytes of a stream or a peer are at fault",
    connection: CONNECTION,
    qemu: "QEMU refused, or cannot do it",
  })
}`;
