"""What a process that decodes strangers' files may do: read files, compute and answer, within limits. Nothing else.

Memory and time are limited wherever there are POSIX limits, what may be asked of the system on Linux with libseccomp.
Where there is neither, a worker that crashes or takes too long still costs no more than its file.
"""

import errno
import math
import os
import sys
import time
from contextlib import suppress

MEMORY = 7 * 2**28
"""Bytes of address space for one file, above what a worker's imports take: 1.75 GiB."""

_REFUSED = {
    "start processes": "execve execveat fork vfork",
    "speak to others": "socket socketpair connect bind listen accept accept4 shmget msgget semget mq_open",
    "look into processes, steer them, end them or leave their group": "ptrace process_vm_readv process_vm_writev kill "
    "tkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_getfd pidfd_send_signal setsid setpgid setpriority "
    "ioprio_set sched_setparam migrate_pages move_pages process_madvise process_mrelease kcmp",
    "change the system, as root": "reboot kexec_load kexec_file_load init_module finit_module delete_module swapon "
    "swapoff sethostname setdomainname settimeofday clock_settime clock_adjtime adjtimex acct quotactl quotactl_fd "
    "fsopen fsmount open_tree move_mount mount_setattr",
    "change files": "creat openat2 truncate rename renameat renameat2 unlink unlinkat link linkat symlink symlinkat "
    "mkdir mkdirat rmdir mknod mknodat chmod fchmod fchmodat chown fchown lchown fchownat utime utimes utimensat "
    "futimesat setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr mount umount2 memfd_create",
    "go round all this": "io_uring_setup io_uring_enter io_uring_register bpf userfaultfd perf_event_open unshare "
    "setns keyctl add_key request_key chroot pivot_root open_by_handle_at",
}
_THREAD = 0x10000  # CLONE_THREAD of clone(2)
_SIGNALLING = (8, 10, 15)
"""fcntl(2)'s F_SETOWN, F_SETSIG, F_SETOWN_EX: whom the system sends which signal when a file has something to read."""

_STEERING = (0x5412, 0x541C, 0x8901, 0x8902)
"""ioctl(2)'s TIOCSTI, TIOCLINUX (as if typed at a terminal), FIOSETOWN, SIOCSPGRP (as above)."""

_OTHERS = ("prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setattr")
"""Calls that name a process: this one alone is allowed, which is 0."""

_CHANGING = (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC)

_inside = False


def is_confined() -> bool:
    """Tell whether this process is one that decodes."""
    return _inside


def confine() -> None:
    """Take from this process, for good, all that decoding does not need; what a system has not is left out."""
    global _inside  # noqa: PLW0603 - a process is, or is not
    _inside = True
    sys.dont_write_bytecode = True
    with suppress(ImportError, ValueError, OSError):  # Windows has none; a lower one may be set
        import resource  # noqa: PLC0415

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        memory = _mapped() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with suppress(ImportError, RuntimeError, OSError):  # not Linux; no libseccomp; forbidden where this runs
        _refuse()


def allow(seconds: float) -> None:
    """Give this process some more processor time, and no more."""
    with suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415

        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds), most))


def _mapped() -> int:
    """Return the address space in use, in bytes; 0 where it is not told."""
    with suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _refuse() -> None:
    """Have the system refuse what is in `_REFUSED`: seccomp(2), which also sets NO_NEW_PRIVS."""
    import pyseccomp  # noqa: PLC0415 - on Linux alone
    from pyseccomp import MASKED_EQ, NE, Arg  # noqa: PLC0415

    calls = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    calls.set_attr(pyseccomp.Attr.CTL_TSYNC, 1)  # for every thread

    def refuse(name: str, *where: Arg, error: int = errno.EPERM) -> None:
        with suppress(OSError):  # a call that this machine, or its libseccomp, does not know
            calls.add_rule(pyseccomp.ERRNO(error), name, *where)

    for name in " ".join(_REFUSED.values()).split():
        refuse(name)
    for flag in _CHANGING:
        refuse("open", Arg(1, MASKED_EQ, flag, flag))
        refuse("openat", Arg(2, MASKED_EQ, flag, flag))
    refuse("clone", Arg(0, MASKED_EQ, _THREAD, 0))
    refuse("clone3", error=errno.ENOSYS)  # its flags cannot be looked at: whoever asks then takes clone
    refuse("tgkill", Arg(0, NE, os.getpid()))  # abort() is a signal to itself
    for name in _OTHERS:
        refuse(name, Arg(0, NE, 0))
    for command in _SIGNALLING:
        refuse("fcntl", Arg(1, MASKED_EQ, 0xFFFFFFFF, command))
    for request in _STEERING:
        refuse("ioctl", Arg(1, MASKED_EQ, 0xFFFFFFFF, request))
    calls.load()
