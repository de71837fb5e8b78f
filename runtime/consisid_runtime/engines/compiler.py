"""What Triton's language needs at run time: it compiles a launcher in C for each kernel when that first runs."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

from consisid_runtime.errors import MissingExtra


def require_compiler() -> None:
    """Raises `MissingExtra` without a C compiler or without Python's headers, found as `triton.runtime.build` does."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    scheme = sysconfig.get_default_scheme()
    headers = sysconfig.get_paths("posix_prefix" if scheme == "posix_local" else scheme)["include"]
    missing = [] if compiler else ["a C compiler (none of $CC, gcc and clang is there)"]
    if not Path(headers, "Python.h").is_file():
        missing.append(f"Python's headers (no Python.h in {headers})")
    if missing:
        raise MissingExtra(
            f"fp16 and bf16 on CUDA compile kernels, which needs {' and '.join(missing)}: install gcc and python3-dev, "
            "or export in fp32"
        )
