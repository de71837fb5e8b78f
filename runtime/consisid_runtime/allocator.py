"""What the C library does with memory that this process frees."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # <malloc.h> of glibc
_LARGEST = 2**31 - 1
_CHOSEN = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let this process reuse the memory of tensors that it freed, instead of handing it back to the kernel.

    glibc maps each large tensor anew, and the kernel clears its pages at the first write, one page fault at a time
    (record `pipeline`: `diffusers-eager` with and without). In return, the process stays as large as it ever was. Call
    it before the first large tensor. A library should not decide this for its application, so `Pipeline.open` does not
    call it; the command, its worker processes and the served models do.

    Returns whether it had an effect: only with glibc, and not where an environment variable of glibc (`MALLOC_…`,
    `GLIBC_TUNABLES`) has chosen already. With another allocator that was preloaded it changes nothing.
    """
    if not sys.platform.startswith("linux") or any(os.environ.get(name) for name in _CHOSEN):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(
        mallopt(name, value) for name, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST))
    )
