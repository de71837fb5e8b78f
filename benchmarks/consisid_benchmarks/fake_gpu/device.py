"""Makes this process's CPU build of PyTorch accept the device "cuda", by a guard compiled with g++."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from consisid_measurement import environment
from consisid_runtime.errors import MissingExtra

SOURCE = Path(__file__).with_name("guard.cpp")


def missing() -> str:
    """Why a fake GPU cannot be made here; "" where it can."""
    import torch

    if torch.cuda.is_available():
        return "this process has a real GPU, which the fake one would hide"
    return "" if shutil.which("g++") else "the fake GPU compiles a device guard for PyTorch: install g++"


def install() -> None:
    """Loads the guard, compiled on first use into build/fake-gpu. Raises `MissingExtra` where it cannot be made."""
    if reason := missing():
        raise MissingExtra(reason)
    import torch

    root = Path(torch.__file__).parent
    content = SOURCE.read_bytes() + torch.__version__.encode()
    library = environment.checkout() / "build" / "fake-gpu" / f"guard-{hashlib.sha256(content).hexdigest()[:12]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        unfinished = library.with_suffix(f".{id(content)}.tmp")
        command = ["g++", "-O0", "-shared", "-fPIC", "-std=c++20", f"-I{root}/include", str(SOURCE), f"-L{root}/lib"]
        abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
        command += [abi, "-lc10", "-o", str(unfinished)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MissingExtra(
                f"g++ cannot compile {SOURCE.name} for PyTorch {torch.__version__}: {done.stderr[-500:]}"
            )
        unfinished.replace(library)
    torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
