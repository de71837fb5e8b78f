"""The ranges that fp8 needs, from the checkpoint's own denoising; kept in the bundle as `calibration.json`."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from consisid_export.bundle.modules import too_large_to_run
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.checkpoint.skeleton import Skeleton
from consisid_export.onnx.fp8 import LARGEST_INPUT, Ranges, quantised_layers
from consisid_export.resuming.folder import WorkFolder
from consisid_export.verify.checkpoint_runs import STEPS, CheckpointRuns
from consisid_runtime.errors import ExportRefused, InvalidOption, InvalidRequest, NotFinite
from consisid_runtime.events import Progress
from consisid_runtime.files.atomic import write_file
from consisid_runtime.files.json_file import read_json
from consisid_runtime.files.ownership import manifest_digest
from consisid_runtime.models import networks

FILE = "calibration.json"


def calibrated(
    work: WorkFolder,
    checkpoint: Checkpoint,
    runs: CheckpointRuns,
    digests: Mapping[str, str],
    given: Path | None,
    progress: Progress,
) -> Ranges:
    """The ranges of an export: those of a finished calibration, those in `given`, or those of runs made now.

    Args:
        digests: of the checkpoint's files.
        progress: called with (phase, step, steps).

    Raises `ExportRefused` where the checkpoint is too large to run here or its runs fail, `InvalidOption` when `given`
    is not for this checkpoint.
    """
    path = work.folder / FILE
    if path.stem not in work.finished:
        if given:
            read_ranges(given, checkpoint, digests)
            shutil.copyfile(given, path)
        else:
            _calibrate(path, checkpoint, runs, digests, progress)
        work.finish(path.stem, {"files": [FILE]})
    return read_ranges(path, checkpoint, digests)


def _calibrate(
    path: Path, checkpoint: Checkpoint, runs: CheckpointRuns, digests: Mapping[str, str], progress: Progress
) -> None:
    too_large = too_large_to_run("dit_step", checkpoint)
    if too_large and runs.device == "cpu":
        raise ExportRefused(
            f"fp8 is calibrated on runs of the checkpoint, and this machine has no CUDA GPU for them ({too_large}); "
            f"export on one that has, or give the {FILE} of a bundle made there with --calibration"
        )
    try:
        ranges = runs.largest_inputs(quantised_layers, progress)
    except (InvalidRequest, NotFinite) as error:
        raise ExportRefused(f"the checkpoint cannot be run to calibrate fp8: {error.wire()}") from error
    if too_wide := [name for name, value in ranges.items() if value > LARGEST_INPUT]:
        raise ExportRefused(
            f"{ranges[too_wide[0]]:.3g} enters {too_wide[0]}, and the rest of an fp8 graph is fp16, which ends at "
            f"{LARGEST_INPUT:.0f}; use precision 'bf16'"
        )
    example = checkpoint.example()
    found: dict[str, Any] = {
        "transformer": _transformer(digests),
        "portrait": hashlib.sha256(example.portrait).hexdigest(),
        "runs": [{"prompt": prompt, "seed": seed, "steps": STEPS} for prompt, seed in example.calibration],
        "versions": {package: version(package) for package in ("consisid-runtime", "torch")},
        "largest_inputs": ranges,
    }
    write_file(path, json.dumps(found | {"digest": manifest_digest(found)}, indent=1, allow_nan=False).encode())


def read_ranges(path: Path, checkpoint: Checkpoint, digests: Mapping[str, str]) -> Ranges:
    """The ranges in a calibration file.

    Raises `InvalidOption` unless it is as it was written, by runs of this checkpoint's transformer.
    """
    try:
        content = read_json(path)
        intact = content["digest"] == manifest_digest(content)
        ranges: Ranges = content["largest_inputs"]
        made_with = content["transformer"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidOption(f"calibration {path} cannot be read ({error}); give the {FILE} of an fp8 bundle") from error
    if not intact:
        raise InvalidOption(f"calibration {path} was changed after it was made; give the {FILE} of an fp8 bundle")
    layers = quantised_layers(networks.load("dit_step", Skeleton(checkpoint), None))
    if made_with != _transformer(digests) or ranges.keys() != layers.keys():
        raise InvalidOption(f"calibration {path} was made with another transformer than {checkpoint.path}'s")
    return ranges


def _transformer(digests: Mapping[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in digests.items() if name.startswith("transformer/")}
