"""What the guard does to the process that it starts, between fork and exec. A plain script's module, as guard.py.

Triton server's Python backend keeps every tensor in files under /dev/shm. It gives them mode 0644 with `fchmod`, which
no umask changes: every user of the machine could read portraits, prompts and videos there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shutil
import signal
import struct

_SET_PARENT_DEATH_SIGNAL, _SET_SECCOMP, _SET_NO_NEW_PRIVILEGES = 1, 22, 38
_FILTER_MODE = 2

_FCHMOD = {"x86_64": (0xC000003E, 91), "aarch64": (0xC00000B7, 52)}
"""Machine → its number in a seccomp filter, and that of the system call."""

# Instructions of a filter (linux/bpf_common.h, linux/seccomp.h), and offsets in `struct seccomp_data`.
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _ARCHITECTURE = 0, 4
_ALLOW, _DO_NOTHING = 0x7FFF0000, 0x00050000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


_libc = ctypes.CDLL(None, use_errno=True)


def confine(parent: int, *, filtered: bool) -> None:
    """Run in the new process: it ends with its parent, and its files are its user's alone.

    Args:
        parent: the process id of the guard.
        filtered: make `fchmod` do nothing, as far as the kernel can: with umask 077 a region of shared memory then has
            mode 0600 from its creation on.
    """
    os.umask(0o077)
    _control(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)
    if filtered:
        with contextlib.suppress(OSError, KeyError):
            _ignore_fchmod(*_FCHMOD[platform.machine()])


def may_filter() -> bool:
    """Whether the filter does no harm. It takes the rights of programs that run as root from the process's children.

    CUDA may start one, `nvidia-modprobe`, to load the driver's module.
    """
    return os.geteuid() == 0 or os.path.exists("/dev/nvidia-uvm") or shutil.which("nvidia-modprobe") is None


def _ignore_fchmod(architecture: int, number: int) -> None:
    """Every later `fchmod` of this process and its children reports success and does nothing. Raises `OSError`."""
    instructions = (
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_IF_EQUAL, 0, 3, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_IF_EQUAL, 0, 1, number),
        (_RETURN, 0, 0, _DO_NOTHING),
        (_RETURN, 0, 0, _ALLOW),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in instructions))
    program = _Program(len(instructions), ctypes.addressof(code))
    _control(_SET_NO_NEW_PRIVILEGES, 1)
    _control(_SET_SECCOMP, _FILTER_MODE, ctypes.byref(program))


def _control(operation: int, *arguments: object) -> None:
    padded = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in (*arguments, 0, 0, 0, 0)[:4]]
    if _libc.prctl(operation, *padded):
        raise OSError(ctypes.get_errno(), "prctl")
