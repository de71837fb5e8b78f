"""The error of a whole denoising run, from the same noise to the latents at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.onnx.fp8 import Ranges, simulate
from consisid_export.onnx.precision import PRECISIONS
from consisid_export.verify.checkpoint_runs import STEPS, CheckpointRuns, Load
from consisid_export.verify.module import fp32_limit, least_limit, relative_error, require_finite
from consisid_runtime.engines.onnxruntime import OnnxEngine
from consisid_runtime.errors import ExportRefused, InvalidRequest
from consisid_runtime.models import networks
from consisid_runtime.signatures import Signature

MODULES = ("dit_prepare", "dit_modulate", "dit_step")

OWN_ERROR_FACTOR = 1.2
"""The largest accepted error of a run, in units of the error of PyTorch's own run in that precision. Roundings average
out over a run, so that this bound is stricter than the factor of two that a single graph is allowed."""

_NARROW = f"{OWN_ERROR_FACTOR} × the distance of PyTorch's own run in this precision from float32"


def check_denoising_run(
    checkpoint: Checkpoint,
    folder: Path,
    signatures: Mapping[str, Signature],
    checks: Mapping[str, Mapping[str, Any]],
    runs: CheckpointRuns,
    *,
    precision: str,
    ranges: Ranges | None = None,
) -> dict[str, Any]:
    """Run the graphs in `folder`, and PyTorch in float32 and in `precision`, on a prompt that calibration has not seen.

    Args:
        checks: each module's own. Where one of `MODULES` was not run, no denoising run is made.
        ranges: those of fp8.

    Returns the manifest's record: "steps" and "check", as a module's. Raises `ExportRefused` above the limit.
    """
    for module in MODULES:
        if checks[module]["kind"] != "numeric":
            return _record({"kind": checks[module]["kind"], "reason": f"{module}: {checks[module]['reason']}"})
    loads = [_torch(checkpoint, runs, torch.float32), _onnx(folder, signatures)]
    if precision != "fp32":
        loads.append(_torch(checkpoint, runs, PRECISIONS[precision], ranges))
    try:
        wanted, found, *own = runs.held_out(*loads)
        error = relative_error(found, wanted)
        limit, reason = least_limit(0.0, "")
        if own:
            own_error = relative_error(own[0], wanted)
            require_finite([own_error], f"after {STEPS} denoising steps")
            limit, reason = least_limit(OWN_ERROR_FACTOR * own_error, _NARROW)
        elif not error <= limit:
            (true,) = runs.held_out(_torch(checkpoint, runs, torch.float64))
            error = relative_error(found, true)
            limit, reason = fp32_limit(relative_error(wanted, true), OWN_ERROR_FACTOR)
    except InvalidRequest as problem:
        return _record({"kind": "none", "reason": f"the checkpoint cannot be run: {problem.wire()}"})
    if not error <= limit:
        raise ExportRefused(
            f"after {STEPS} denoising steps the latents differ from PyTorch's by {error:.1e} (relative L2); the limit "
            f"is {limit:.2g} ({reason})"
        )
    return _record({"kind": "numeric", "error": error, "limit": limit, "reason": reason})


def _record(check: dict[str, Any]) -> dict[str, Any]:
    return {"steps": STEPS, "check": check}


def _torch(checkpoint: Checkpoint, runs: CheckpointRuns, dtype: torch.dtype, ranges: Ranges | None = None) -> Load:
    def load(name: str) -> Any:
        if ranges and name == "dit_step":
            return runs.engine(name, simulate(networks.load(name, checkpoint), ranges))
        return runs.engine(name, networks.load(name, checkpoint, dtype))

    return load


def _onnx(folder: Path, signatures: Mapping[str, Signature]) -> Load:
    return lambda name: OnnxEngine(folder / f"{name}.onnx", signatures[name], device="cpu")
