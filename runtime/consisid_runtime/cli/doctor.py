"""`consisid doctor`: the installed packages, the packages that each extra lacks, and the GPU."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from packaging.requirements import Requirement

from consisid_runtime.engines.table import ENGINES

DISTRIBUTION = "consisid-runtime"
_DEVICES = {"cpu": "a CPU", "cuda": "an NVIDIA GPU"}
_NOTES = {
    "gpu": "cannot be combined with [cpu]",
    "kernels": "beside [gpu]; needs a C compiler and Python's headers when it runs",
    "tensorrt": "builds engines, too, on a GPU; from NVIDIA's package index",
    "tensorrt-rtx": "for GeForce and RTX cards; builds engines, too, without a GPU",
}
_OTHERS = {
    "torch-tensorrt": "build TensorRT engines from PyTorch (from NVIDIA's package index, needs a GPU)",
    "export": "export checkpoints to bundles (export, nano)",
    "door": "serve beside a Triton server of NVIDIA's container (serve)",
    "trace": "send spans of requests (serve --trace)",
    "provenance": "sign videos, and check signatures (generate, serve, inspect)",
    "server": "serve with NVIDIA's Triton server (serve)",
    "bench": "measure against diffusers (bench)",
}


def extras() -> dict[str, str]:
    """Extra of consisid-runtime → what it adds."""
    targets = [(kind.name, target) for kind in ENGINES.values() for target in kind.targets]
    found = {}
    for extra in dict.fromkeys(target.extra for _, target in targets):
        runs = [f"{name} ({', '.join(target.precisions)})" for name, target in targets if target.extra == extra]
        device = next(_DEVICES[target.device] for _, target in targets if target.extra == extra)
        note = f"; {_NOTES[extra]}" if extra in _NOTES else ""
        found[extra] = f"run bundles of engine {' and '.join(runs)} on {device}{note}"
    return found | _OTHERS


def examine() -> dict[str, Any]:
    """The facts about this machine and environment. Imports nothing heavy."""
    needs = [Requirement(text) for text in requires(DISTRIBUTION) or []]
    return {
        "python": platform.python_version(),
        "version": version(DISTRIBUTION),
        "gpu": _gpu(),
        "extras": {extra: {"adds": adds, "missing": _missing(needs, extra)} for extra, adds in extras().items()},
        "packages": {need.name: _version(need.name) for need in needs if need.name != DISTRIBUTION},
    }


def table(found: dict[str, Any]) -> str:
    """The result of `examine` as text."""
    lines = [
        f"consisid-runtime {found['version']}, Python {found['python']}",
        f"GPU: {found['gpu'] or 'none found (nvidia-smi is missing or lists none)'}",
        "",
    ]
    for extra, state in found["extras"].items():
        lines.append(f"{'complete' if not state['missing'] else 'missing ':9} [{extra}] {state['adds']}")
        if state["missing"]:
            lines.append(f"          pip install 'consisid-runtime[{extra}]' installs {', '.join(state['missing'])}")
    lines.append("")
    lines += [f"{name:16} {installed or '-'}" for name, installed in sorted(found["packages"].items())]
    return "\n".join(lines)


def _missing(needs: list[Requirement], extra: str) -> list[str]:
    missing: list[str] = []
    for need in needs:
        if need.marker is None or not need.marker.evaluate({"extra": extra}):
            continue
        if need.name == DISTRIBUTION:
            missing += [name for inner in need.extras for name in _missing(needs, inner)]
        elif not _satisfied(need):
            missing.append(f"{need.name}{need.specifier}")
    return missing


def _satisfied(need: Requirement) -> bool:
    installed = _version(need.name)
    return installed is not None and need.specifier.contains(installed, prereleases=True)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpu() -> str | None:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
