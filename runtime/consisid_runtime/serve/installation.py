"""Finds NVIDIA's `tritonserver`, and prepares what its Python backend needs to run this very package.

The server comes with the wheel `nvidia-pytriton` or with NVIDIA's container, or is on PATH.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from consisid_runtime.errors import MissingExtra
from consisid_runtime.wire import PACKAGE_VARIABLE

CONTAINER = Path("/opt/tritonserver")

PACKAGE = Path(__file__).resolve().parents[1]
"""Folder of the `consisid_runtime` that is running."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Where a Triton server is.

    Attributes:
        binary: the executable.
        backends: the folder that holds `python/libtriton_python.so`.
        stub: the Python backend's helper for this Python where it lies elsewhere (in the wheel), else None.
    """

    binary: Path
    backends: Path
    stub: Path | None = None


def find() -> Installation:
    """The wheel's server, else one on PATH, else the container's. Raises `MissingExtra`."""
    # find_spec of a top-level package locates it without importing it.
    spec = importlib.util.find_spec("pytriton")
    if spec is not None and spec.submodule_search_locations:
        root = Path(spec.submodule_search_locations[0]).resolve() / "tritonserver"
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = root / "python_backend_stubs" / version / "triton_python_backend_stub"
        if not stub.is_file():
            raise MissingExtra(f"nvidia-pytriton has no Python backend for Python {version}; use 3.11 or 3.12")
        return Installation(root / "bin" / "tritonserver", root / "backends", stub)
    on_path = shutil.which("tritonserver", path=os.pathsep.join([os.environ.get("PATH", ""), f"{CONTAINER}/bin"]))
    if on_path is None:
        raise MissingExtra(
            "no Triton server on this machine: pip install 'consisid-runtime[server]', or work in NVIDIA's container "
            "nvcr.io/nvidia/tritonserver (25.07 or later)"
        )
    binary = Path(on_path).resolve()
    backends = binary.parent.parent / "backends"
    return Installation(binary, backends if backends.is_dir() else CONTAINER / "backends")


def backend_folder(installation: Installation, folder: Path) -> Path:
    """A backend directory with the stub beside its library, as the server wants it; the wheel has them apart."""
    if installation.stub is None:
        return installation.backends
    python = folder / "backends" / "python"
    python.mkdir(parents=True)
    for file in ("libtriton_python.so", "triton_python_backend_utils.py"):
        (python / file).symlink_to(installation.backends / "python" / file)
    (python / installation.stub.name).symlink_to(installation.stub)
    # Where the disk is full, Python would keep a part of a module's bytecode there, and no model could read it.
    (python / "__pycache__").touch()
    return python.parent


def import_folder(folder: Path) -> Path:
    """A working directory with this package in it and nothing else.

    The stub ignores PYTHONPATH and imports from its working directory before all others: so it gets this very package,
    not another installed one, and nothing that happens to lie where the server was started.
    """
    working = folder / "imports"
    working.mkdir()
    (working / PACKAGE.name).symlink_to(PACKAGE)
    return working


def environment() -> dict[str, str]:
    """What makes the stub's embedded interpreter this one: its library, its virtual environment."""

    def prepend(name: str, folder: str | Path) -> str:
        return os.pathsep.join(filter(None, [str(folder), os.environ.get(name)]))

    return {
        # An embedded interpreter finds its virtual environment through the first python3 on PATH.
        "PATH": prepend("PATH", Path(sys.executable).parent),
        "LD_LIBRARY_PATH": prepend("LD_LIBRARY_PATH", sysconfig.get_config_var("LIBDIR")),
        PACKAGE_VARIABLE: str(PACKAGE),
    }
