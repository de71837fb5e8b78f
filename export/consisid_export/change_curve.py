"""Measures how far the clean latents of a checkpoint move over its own denoising runs."""

from __future__ import annotations

import tempfile
from itertools import accumulate
from pathlib import Path

import numpy as np

from consisid_export.bundle.copied_files import copy_files
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.verify.checkpoint_runs import CheckpointRuns
from consisid_runtime.events import Progress, silent
from consisid_runtime.models import networks
from consisid_runtime.tiers import Curve

STEPS = 100
_DIGITS = 5


def measure_curve(checkpoint: Checkpoint, progress: Progress = silent, *, steps: int = STEPS) -> Curve:
    """The mean curve of the example's calibration runs, by PyTorch, on a CUDA GPU where there is one.

    The solver is "ddim": it draws no noise, so that a finer run follows the same path and moves as far.

    Args:
        progress: called with (run, steps done, steps).

    Raises what the stages raise, `NoFace` for one, and `NotFinite`.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy_files(checkpoint, Path(folder))
        runs = CheckpointRuns(checkpoint, Path(folder), networks.signatures(checkpoint))
        timesteps, moved = runs.changes(steps, progress)
    change = accumulate(np.mean(moved, axis=0))
    return Curve(timesteps, (0.0, *(round(float(level), _DIGITS) for level in change)))
