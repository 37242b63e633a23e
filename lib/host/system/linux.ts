/**
 * Linux's constants, the same on x86-64 and arm64, by their names in the manual pages that the
 * comments give.
 */
import { constants } from "node:os";

/** errno(3). The runtime has all of them but EBADFD, that of a TAP device that is not usable. */
export const ERRNO = { ...constants.errno, EBADFD: 77 };

// open(2)
export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_RDWR = 2;
export const O_ACCMODE = 3;
export const O_CREAT = 0o100;
export const O_EXCL = 0o200;
export const O_APPEND = 0o2000;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;

// fcntl(2) and flock(2)
export const F_SETFD = 2;
export const F_GETFL = 3;
export const F_SETFL = 4;
export const F_OFD_GETLK = 36;
export const F_OFD_SETLK = 37;
export const F_SETPIPE_SZ = 1031;
export const FD_CLOEXEC = 1;
export const F_RDLCK = 0;
export const F_WRLCK = 1;
export const F_UNLCK = 2;
export const LOCK_EX = 2;
export const LOCK_NB = 4;

// lseek(2), fallocate(2), posix_fadvise(2), preadv2(2), eventfd(2)
export const SEEK_SET = 0;
export const SEEK_CUR = 1;
export const SEEK_END = 2;
export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;
export const FALLOC_FL_KEEP_SIZE = 0x01;
export const FALLOC_FL_PUNCH_HOLE = 0x02;
export const FALLOC_FL_ZERO_RANGE = 0x10;
export const POSIX_FADV_WILLNEED = 3;
export const RWF_NOWAIT = 8;
export const EFD_NONBLOCK = 0o4000;
export const EFD_CLOEXEC = 0o2000000;

// inode(7): the kind of a file, in st_mode
export const S_IFMT = 0o170000;
export const S_IFIFO = 0o010000;
export const S_IFREG = 0o100000;
export const S_IFSOCK = 0o140000;

// poll(2)
export const POLLIN = 1;
export const POLLOUT = 4;
export const POLLERR = 8;
export const POLLHUP = 0x10;

// socket(2), socket(7), packet(7), tcp(7)
export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_PACKET = 17;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const SOL_SOCKET = 1;
export const SO_REUSEADDR = 2;
export const SO_ERROR = 4;
export const SO_SNDBUF = 7;
export const SO_SNDBUFFORCE = 32;
export const SO_RCVBUFFORCE = 33;
export const SOL_PACKET = 263;
export const PACKET_STATISTICS = 6;
/** `sll_pkttype` of a frame that leaves by the interface. */
export const PACKET_OUTGOING = 4;
/** ETH_P_ALL as socket(2) takes it. */
export const ETH_P_ALL_NETWORK_ORDER = 0x0300;
export const IPPROTO_TCP = 6;
export const TCP_NODELAY = 1;
export const TCP_INFO = 11;
export const SHUT_WR = 1;
export const SHUT_RDWR = 2;
export const MSG_CTRUNC = 0x8;
export const MSG_NOSIGNAL = 0x4000;
export const MSG_CMSG_CLOEXEC = 0x4000_0000;
export const SCM_RIGHTS = 1;

// ioctl(2) on sockets and TAP devices
export const TUNSETIFF = 0x400454can;
export const SIOCGIFINDEX = 0x8933n;
export const SIOCOUTQ = 0x5411n;
export const IFF_TAP = 0x0002;
export const IFF_NO_PI = 0x1000;

// mmap(2), madvise(2)
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_ANONYMOUS = 0x20;
export const MADV_HUGEPAGE = 14;
export const MADV_POPULATE_WRITE = 23;

// setns(2), kill(2)
export const CLONE_NEWNET = 0x40000000;
export const SIGKILL = constants.signals.SIGKILL;
