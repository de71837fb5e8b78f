"""Checks the tensors that a served model is sent: who calls one stage directly may send any shape and value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from consisid_runtime.errors import InvalidOption, NotFinite
from consisid_runtime.files.json_file import parse_json
from consisid_runtime.plan import Plan
from consisid_runtime.signatures import Signature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from consisid_runtime.bundle import Bundle


# Bytes, and seconds of one stage: no report of a stage comes near.
_MOST_REPORTED, _LONGEST = 2**20, 1e9


def checkpoint_dims(bundle: Bundle) -> dict[str, int]:
    """The symbols in the stages' inputs that a checkpoint decides, and their numbers."""
    shapes = {
        port.name: port.shape for module in ("dit_prepare", "dit_step") for port in bundle.signature(module).inputs
    }
    crop = bundle.signature("parser").inputs[0].shape[-1]
    sizes = {
        "text_length": shapes["text_states"][1],
        "text_dim": shapes["text_states"][2],
        "face_tokens": shapes["face_tokens"][1],
        "face_dim": shapes["face_tokens"][2],
        "channels": shapes["latents"][2],
        "crop": crop,
        "patch": bundle.config.transformer.patch_size,
        "images": 1 + bundle.config.transformer.is_kps,
    }
    return {name: size for name, size in sizes.items() if isinstance(size, int)}


def request_dims(plan: Plan) -> dict[str, int]:
    """The symbols in the stages' inputs that a request decides, and their numbers."""
    return {"branches": 1 + plan.guided, "frames": plan.latent_frames, "rows": plan.rows, "columns": plan.columns}


def check_tensors(signature: Signature, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Raises `InvalidOption` for a shape that is not the signature's, where that is a number, or a value not finite."""
    for port in signature.inputs:
        if port.optional and port.name not in tensors:
            continue
        tensor = tensors[port.name]
        fits = len(tensor.shape) == len(port.shape) and all(
            isinstance(wanted, str) or size == wanted for size, wanted in zip(tensor.shape, port.shape, strict=True)
        )
        if not fits:
            raise InvalidOption(
                f"{port.name} must be {list(port.shape)} with this checkpoint and these options, got "
                f"{list(tensor.shape)}; give every stage the same options"
            )
        if port.dtype == "FP32" and not np.isfinite(tensor).all():
            raise InvalidOption(f"{port.name} has values that are not finite")


def check_finite(signature: Signature, outputs: Mapping[str, NDArray[Any]]) -> None:
    """Raises `NotFinite` for outputs that the next stage would take for its caller's mistake."""
    for port in signature.outputs:
        if port.dtype == "FP32" and port.name in outputs and not np.isfinite(outputs[port.name]).all():
            raise NotFinite(
                f"{signature.name} returned {port.name} with values that are not finite; try less guidance, or a "
                "bundle exported with higher precision"
            )


def read_report(stage: str, text: bytes) -> dict[str, Any]:
    """What a stage reported as JSON, with its `seconds`. Raises `InvalidOption` for anything else."""
    problem = "an object with the number of its seconds"
    try:
        report = parse_json(text, most=_MOST_REPORTED)
        seconds = report["seconds"]
        if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < _LONGEST:
            return dict(report)
    except ValueError as error:
        problem = str(error)
    except (KeyError, TypeError):
        pass
    raise InvalidOption(
        f"{stage}_info must be the JSON that the model {stage} answers with ({problem}), got {text[:100]!r}"
    )
