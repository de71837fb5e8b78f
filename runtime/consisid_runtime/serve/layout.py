"""Chooses between a process for each stage and one for all, by what fits on the device."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from consisid_runtime.errors import InvalidOption
from consisid_runtime.memory.decide import Setting, check_memory, process_needs, require_countable
from consisid_runtime.serve.repository import ENSEMBLE_LAYOUT, LAYOUTS, SINGLE_LAYOUT

if TYPE_CHECKING:
    from consisid_runtime.bundle import Bundle

AUTO = "auto"
_PATIENCE = 60.0
"""Seconds that a GPU's driver may take to answer."""
_FREE = "import sys; from consisid_runtime.memory.decide import free; print(free(sys.argv[1]))"


def check(layout: str, memory: Setting | None) -> None:
    """Raises `InvalidOption` for an unknown layout, or a memory setting that is none or does not go with it."""
    if layout not in (AUTO, *LAYOUTS):
        raise InvalidOption(f"layout must be {', '.join((AUTO, *LAYOUTS))}, got {layout!r}")
    if memory is not None:
        check_memory(memory)
        if layout == ENSEMBLE_LAYOUT:
            raise InvalidOption(
                f"memory is for layout {SINGLE_LAYOUT!r}: in {ENSEMBLE_LAYOUT!r} five processes share a device, and "
                "none knows of the others' weights"
            )


def asks_device(layout: str, memory: Setting | None) -> bool:
    """Whether `choose` asks what the device has free: nothing else of ours should be on it then."""
    return layout == AUTO and memory is None


def choose(layout: str, bundle: Bundle, memory: Setting | None) -> str:
    """One of `LAYOUTS` for a bundle, opened for the device that it will be served on.

    For "auto" the ensemble, unless its processes do not fit on the GPU by the committed table of what modules take; or
    there is a memory setting, which one process alone can keep. Raises `InvalidOption` where the bundle has no memory
    plan.
    """
    if memory is not None:
        require_countable(bundle.config, bundle.manifest["modules"])
        return SINGLE_LAYOUT
    if layout != AUTO:
        return layout
    try:
        needed = process_needs(bundle.config, bundle.manifest["modules"])
    except InvalidOption:  # what is not in the table is small, or not on PyTorch
        return ENSEMBLE_LAYOUT
    free = _free(bundle.device)
    return ENSEMBLE_LAYOUT if free is None or needed <= free else SINGLE_LAYOUT


def _free(device: str) -> int | None:
    """Bytes that the GPU has free; None without one, or where it does not say.

    A process that asks keeps CUDA's context, so another one does.
    """
    if device == "cpu":
        return None
    command = [sys.executable, "-c", _FREE, device]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        return None
    return int(asked.stdout) if asked.returncode == 0 else None
