/** A whole message of every kind that a control socket carries. */
import type { ProtectRequest } from "../protect_request.ts";
import type { EarlyReceiverStatus, ReceiverStatus } from "../receiver_status.ts";
import type { EarlyStatus, SenderDurations, SenderStatus } from "../sender_status.ts";
import type { TapStatus } from "../tap_status.ts";

const LATENCY = { count: 40, p50: 1.25, p99: 12.5, max: 100 };
const EVENTS = { trigger: LATENCY, commit: LATENCY, release: LATENCY };
const COMMON = {
  lastCommitted: 41,
  lastCommittedAgeMs: 2.5,
  syncs: 41,
  syncsPerSecond: 350,
  pages: 1000,
  zeroPages: 20,
  payloadBytes: 5 * 2 ** 20,
  wireBytes: 6 * 2 ** 20,
  encryption: {
    kind: "tls" as const,
    peer: "kemari",
    cipher: "TLS_AES_128_GCM_SHA256",
    inKernel: false,
  },
};

export const TAPS: TapStatus = {
  nets: {
    net0: {
      heldFrames: 1,
      heldBytes: 60,
      queuedFrames: 2,
      queuedBytes: 120,
      passedOut: 3,
      releasedFrames: 4,
      passedIn: 5,
      droppedNoGuest: 6,
      droppedByOut: 7,
      refusedGuests: 8,
      guestConnected: true,
      outConnected: false,
      hold: LATENCY,
    },
  },
  disks: [{
    name: "disk0",
    mode: "replicated",
    sizeBytes: 2 ** 30,
    copied: 0.25,
    resync: { doneBytes: 3, equalBytes: 2, sentBytes: 1 },
    heldBytes: 4,
    unreleasedWrites: 5,
    limitBytes: 2 ** 27,
    throttled: 6,
    throttledMs: 7,
    stuck: "No space left on device",
    waiting: 8,
    stalledMs: 9,
  }],
  diskHold: LATENCY,
  latency: { net: EVENTS, disk: EVENTS },
};

export const SENDER: SenderStatus = {
  ...COMMON,
  role: "sender",
  vm: { name: "web", uuid: "00000000-0000-4000-8000-000000000001" },
  state: "synchronizing",
  mode: "colo",
  peer: "secondary:4000",
  unchangedPages: 7,
  sent: { pages: 4, deviceState: 3, events: 2, framing: 1 },
  compression: {
    mode: "delta",
    streamBytes: 1,
    deltaPages: 2,
    packedFromBytes: 3,
    packedToBytes: 4,
    packingMs: 5,
    cacheBytes: 6,
    cacheLimitBytes: 7,
    cacheHits: 8,
    cacheMisses: 9,
    cacheEvictions: 10,
    settling: LATENCY,
  },
  pause: LATENCY,
  receiving: LATENCY,
  roundTrip: LATENCY,
  inFlight: 2,
  pendingBytes: 4096,
  outside: {
    unheld: "No NIC of this VM goes through kemari",
    nics: [{
      name: "n1",
      model: "e1000",
      mac: "52:54:00:00:00:01",
      backends: [{ name: "h1", type: "tap", info: "ifname=t0" }],
      text: "n1 (e1000, tap t0)",
    }],
    drives: ["vdb"],
    others: ["serial0"],
  },
  deviceChange: "+usb-tablet",
  taps: TAPS,
};

export const EARLY_SENDER: EarlyStatus = {
  role: "sender",
  state: "waiting for QEMU",
  peer: "secondary:4000",
  syncs: 0,
};

export const RECEIVER: ReceiverStatus = {
  ...COMMON,
  role: "receiver",
  vm: { name: null, uuid: null },
  state: "active",
  machine: "pc-i440fx-11.1",
  sender: "kemari 0.1.0",
  replicaBytes: 2 ** 26,
  ram: { folder: "/dev/shm/vm", reserve: "full", reservedBytes: 2 ** 29 },
  deviceChange: null,
  applying: LATENCY,
  arriving: false,
  unreleased: 3,
  longestSilenceMs: 20,
  pendingWrites: 1,
  incompleteDisks: ["disk1"],
  lastLoss: "the primary is silent",
  standby: { state: "running", pid: 4711, restarts: 1, reason: "it died" },
  takeover: {
    cause: "loss",
    detectedAt: "2026-01-01T00:00:00.000Z",
    transaction: 41,
    mode: "warm",
    fencedMs: 1,
    appliedMs: 2,
    loadedMs: 3,
    runningMs: 4,
    firstPacketMs: null,
  },
};

export const EARLY_RECEIVER: EarlyReceiverStatus = {
  role: "receiver",
  state: "starting",
  syncs: 0,
};

const RECENT = { count: 3, ms: [1, 2.5, 3] };

export const DURATIONS: SenderDurations = {
  netHold: { net0: RECENT },
  diskHold: RECENT,
  pause: RECENT,
  receiving: RECENT,
  roundTrip: RECENT,
};

export const PROTECT: ProtectRequest = {
  command: "protect",
  software: "kemari 0.1.0",
  settings: {
    target: "secondary:4000",
    security: { key: "/etc/kemari.key" },
    ssh: { ssh: "ssh -p 2222", remoteKemari: "kemari", overSsh: false, startRecv: "0.0.0.0:4000" },
    qmp: "/run/vm.qmp",
    mode: "auto",
    commit: "async",
    maxInFlightBytes: 2 ** 26,
    syncIntervalMs: 100,
    onSecondaryLoss: "continue",
    retry: true,
    sessionName: "again",
    vm: "web",
    taps: { nets: [], disks: [], diskSync: "full" },
    syncOn: ["net", "disk"],
    syncMinIntervalMs: 5,
    heartbeatMs: 500,
    graceMs: 5000,
    compress: "none",
    dedup: false,
    deltaCacheBytes: 2 ** 28,
  },
};
