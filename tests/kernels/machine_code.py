"""Compiles kernels in a process without TRITON_INTERPRET, which Triton reads when it is imported."""

import os
import subprocess
import sys
from pathlib import Path


def run_python(
    *arguments: str | Path, folder: Path | None = None, triton: Path | None = None, check: bool = True
) -> str:
    """Standard output of `python arguments` in a folder, with the Triton that another folder contains.

    Fails if the process does; with `check` False, only if it prints nothing.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if triton:
        environment["PYTHONPATH"] = str(triton)
    # Unlike PYTHONPATH, -P keeps the working directory off the path.
    command = [sys.executable, "-P", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or (done.stdout and not check), done.stderr
    return done.stdout


def install_newest_triton(folder: Path) -> Path:
    """Installs Triton's newest release into a folder, unless the folder exists."""
    if not folder.is_dir():
        install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), "triton"]
        subprocess.run([sys.executable, *install], check=True)
    return folder
