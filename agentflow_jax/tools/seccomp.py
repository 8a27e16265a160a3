"""The system calls a jailed program may make, as a seccomp filter.

An allow-list: what a single process needs to compute, and files of its own.
Missing on purpose: sockets, new processes (`clone` makes threads only, so a
program can neither fork nor leave anything behind), namespaces, mounts, ptrace,
memfd and shared memory (they would hold memory no limit counts), io_uring,
bpf, keys, and changing user or limits of other processes.

A filter is classic BPF over `struct seccomp_data`: compare the architecture,
then the number, one jump each. bubblewrap loads it just before the program.
"""

import platform
import struct

# name, number on x86_64, number on aarch64 ("-": does not exist there).
_TABLE = """
  read 0 63, write 1 64, close 3 57, fstat 5 80, lseek 8 62, mmap 9 222,
  mprotect 10 226, munmap 11 215, brk 12 214, rt_sigaction 13 134,
  rt_sigprocmask 14 135, rt_sigreturn 15 139, ioctl 16 29, pread64 17 67,
  pwrite64 18 68, readv 19 65, writev 20 66, preadv 295 69, pwritev 296 70,
  sched_yield 24 124, mremap 25 216, msync 26 227, mincore 27 232,
  madvise 28 233, dup 32 23, dup3 292 24, nanosleep 35 101, getitimer 36 102,
  setitimer 38 103, getpid 39 172, exit 60 93, exit_group 231 94,
  uname 63 160, fcntl 72 25, flock 73 32, fsync 74 82, fdatasync 75 83,
  truncate 76 45, ftruncate 77 46, getcwd 79 17, chdir 80 49, fchdir 81 50,
  gettimeofday 96 169, getrlimit 97 163, getrusage 98 165, sysinfo 99 179,
  times 100 153, getuid 102 174, getgid 104 176, geteuid 107 175,
  getegid 108 177, getppid 110 173, getpgid 121 155, getsid 124 156,
  getgroups 115 158, getresuid 118 148, getresgid 120 150,
  rt_sigpending 127 136, rt_sigtimedwait 128 137, rt_sigsuspend 130 133,
  sigaltstack 131 132, statfs 137 43, fstatfs 138 44, gettid 186 178,
  futex 202 98, sched_getaffinity 204 123, set_tid_address 218 96,
  restart_syscall 219 128, clock_gettime 228 113, clock_getres 229 114,
  clock_nanosleep 230 115, tgkill 234 131, openat 257 56, mkdirat 258 34,
  newfstatat 262 79, unlinkat 263 35, renameat 264 38, renameat2 316 276,
  linkat 265 37, symlinkat 266 36, readlinkat 267 78, fchmod 91 52,
  fchmodat 268 53, faccessat 269 48, faccessat2 439 439, pselect6 270 72,
  ppoll 271 73, set_robust_list 273 99, get_robust_list 274 100,
  utimensat 280 88, pipe2 293 59, eventfd2 290 19, epoll_create1 291 20,
  epoll_ctl 233 21, epoll_pwait 281 22, prlimit64 302 261, getrandom 318 278,
  getdents64 217 61, membarrier 324 283, copy_file_range 326 285,
  statx 332 291, rseq 334 293, execve 59 221, fadvise64 221 223,
  fallocate 285 47, sched_getparam 143 121, sched_getscheduler 145 120,
  getpriority 140 141, close_range 436 436, openat2 437 437, kill 62 129,
  wait4 61 260, prctl 157 167, sched_get_priority_max 146 125,
  sched_get_priority_min 147 126, getcpu 309 168, capget 125 90, open 2 -,
  stat 4 -, lstat 6 -, poll 7 -, access 21 -, pipe 22 -, select 23 -,
  dup2 33 -, alarm 37 -, pause 34 -, getpgrp 111 -, rename 82 -, mkdir 83 -,
  rmdir 84 -, creat 85 -, link 86 -, unlink 87 -, symlink 88 -,
  readlink 89 -, chmod 90 -, arch_prctl 158 -, time 201 -, getdents 78 -,
  epoll_wait 232 -, epoll_create 213 -, eventfd 284 -
"""
# machine -> (AUDIT_ARCH, column of the table, number of clone)
_MACHINES = {
  "x86_64": (0xC000003E, 1, 56),
  "aarch64": (0xC00000B7, 2, 220),
}
# Later system calls "do not exist" instead of being forbidden, so that the C
# library falls back to older ones; clone3 hides its flags behind a pointer.
_FIRST_NEW = 435

_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # offsets in seccomp_data
_CLONE_THREAD = 0x00010000
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_NAMESPACES = 0x7E020000


def allowed(machine: str) -> dict[str, int]:
  """Names and numbers of the calls that are always allowed."""
  _, column, _ = _MACHINES[machine]
  rows = (row.split() for row in _TABLE.replace("\n", " ").split(","))
  return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def filter_program(machine: str | None = None) -> bytes | None:
  """The filter as an array of `struct sock_filter`.

  Args:
    machine: as `platform.machine()` names it; None is this one.

  Returns:
    The bytes, or None where no table is known (the jail then relies on its
    namespaces alone).

  Example: `os.write(fd, filter_program())`, then `bwrap --seccomp FD`.
  """
  machine = machine or platform.machine()
  if machine not in _MACHINES:
    return None
  arch, _, clone = _MACHINES[machine]
  instructions = [
    _ins(_LOAD, _ARCH),
    _ins(_EQUAL, arch, 1, 0),
    _ins(_RETURN, _KILL),
    _ins(_LOAD, _NUMBER),
  ]
  for number in sorted(allowed(machine).values()):
    instructions += [_ins(_EQUAL, number, 0, 1), _ins(_RETURN, _ALLOW)]
  instructions += [
    _ins(_EQUAL, clone, 3, 0),
    _ins(_AT_LEAST, _FIRST_NEW, 0, 1),
    _ins(_RETURN, _ERRNO | _ENOSYS),
    _ins(_RETURN, _ERRNO | _EPERM),
    # clone: exactly CLONE_THREAD among the flags that matter.
    _ins(_LOAD, _FIRST_ARGUMENT),
    _ins(_AND, _CLONE_THREAD | _NAMESPACES),
    _ins(_EQUAL, _CLONE_THREAD, 0, 1),
    _ins(_RETURN, _ALLOW),
    _ins(_RETURN, _ERRNO | _EPERM),
  ]
  return b"".join(instructions)


def _ins(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
  return struct.pack("=HBBI", code, then, otherwise, value)
