/** Error messages for when ssh, or its remote command, has ended: the cause, and what to do. */
import { foreignText } from "../../foreign_text.ts";

/** The facts about a failure. */
export interface SshEnd {
  /** The command by which a person would log in there: `ssh HOST`. */
  readonly login: string;
  /** The exit code: 255 for an error of ssh; else the remote command's. */
  readonly code: number;
  /** The last lines of stderr, of both ssh and the remote command. */
  readonly lines: readonly string[];
  /** Output on stdout without a whole line, if any. */
  readonly said: string;
  /** Whether kemari had answered there: then ssh had logged in, and kemari had started. */
  readonly isGreeted: boolean;
}

export interface SshFailureWords {
  readonly message: string;
  readonly hint: string;
}

/** The most informative line is the last. */
const MAX_LINE_CHARS = 300;
/** The exit code if ssh itself, and not the remote command, has failed. */
export const SSH_FAILED = 255;

/** OpenSSH's messages, which are not translated, and what to do about them. */
const KNOWN: readonly (readonly [words: RegExp, hint: string])[] = [
  [
    /HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed/,
    "the host has another key than it had: find out why, and only then ssh-keygen -R HOST",
  ],
  [
    /Host key verification failed|No .* host key is known/,
    "log in once with ssh, compare the host's key, and accept it",
  ],
  [
    /Permission denied|Too many authentication failures/,
    "give that user a key without a passphrase, or an agent, that this process can use: " +
    "ssh-copy-id HOST",
  ],
  [
    /Could not resolve hostname/,
    "check the name: ssh knows it from ~/.ssh/config or a name server",
  ],
  [
    /Connection refused|Connection timed out|No route to host|Network is unreachable/,
    "is the host up, and does its ssh server listen? Another port: ~/.ssh/config, or --ssh " +
    '"ssh -p PORT"',
  ],
  [/Bad owner or permissions|Bad configuration option/, "mend ssh's own configuration"],
];

/** Error for an ssh that has ended before a session could begin. */
export function sshFailure(end: SshEnd): SshFailureWords {
  const { login, code, lines, said, isGreeted } = end;
  const last = foreignText(lines.at(-1) ?? "", MAX_LINE_CHARS);
  const quoted = last === "" ? "" : `: ${last}`;
  if (isGreeted) {
    const what = code === SSH_FAILED ? "ssh has lost its connection" : "kemari ended there";
    return {
      message: `${what}, with exit code ${code}${quoted}`,
      hint: "see whether that host is up, and what kemari recv says there",
    };
  }
  if (said !== "") {
    return {
      message:
        `"${said}" was said there instead of kemari's words, and the command ended with ${code}` +
        quoted,
      hint: `look what this says: ${login} kemari --version`,
    };
  }
  switch (code) {
    case SSH_FAILED:
      return {
        message: `ssh cannot log in${quoted}`,
        hint: KNOWN.find(([words]) => lines.some((line) => words.test(line)))?.[1] ??
          `look what this says: ${login} true`,
      };
    case 127:
      return {
        message: `there is no kemari on that host${quoted}`,
        hint:
          "install it there, in a folder of the PATH of logins without a terminal; or say with " +
          "--remote-kemari where it is",
      };
    case 126:
      return {
        message: `kemari cannot be run on that host${quoted}`,
        hint: "look at its mode, and at what its file system was mounted with",
      };
    case 2:
      return {
        message: `the kemari on that host does not know how to attach a sender${quoted}`,
        hint: "it is an older one: install the same kemari on both hosts",
      };
    default:
      return {
        message: `the command on that host ended with ${code}${quoted}`,
        hint: `look what this says: ${login} kemari --version`,
      };
  }
}
