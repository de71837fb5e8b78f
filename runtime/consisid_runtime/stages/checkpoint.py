"""The state between two denoising steps as bytes, from which the same request goes on later or elsewhere."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from consisid_runtime.errors import CheckpointRefused
from consisid_runtime.files.json_file import parse_json
from consisid_runtime.plan import Plan
from consisid_runtime.stages.table import Values

FORMAT = 1
_MOST_BYTES = 2**30
_MOST_HEADER = 2**14
"""Bytes; those of `write` have 600. Its JSON is parsed before anything is known of who sent it."""
_DTYPES = {"latents": np.float32, "x0": np.float32, "generator": np.uint8}


@dataclass(frozen=True, slots=True)
class Origin:
    """What a checkpoint belongs to. Another kind of device would end with other bytes.

    Attributes:
        bundle: its fingerprint.
        device: the hardware's name, as `engines.hardware`.
        request: as `request_digest`.
    """

    bundle: str
    device: str
    request: str


def request_digest(photo: bytes, values: Values, plan: Plan) -> str:
    """SHA-256 of all that decides a video's bytes on one bundle and device: the photograph's own SHA-256, and so on."""
    found = hashlib.sha256(photo)
    found.update(json.dumps([values["prompt"], repr(plan)]).encode())
    return found.hexdigest()


def write(step: int, values: Values, origin: Origin) -> bytes:
    """The state before `step`, in the safetensors format.

    Args:
        values: "latents" and "x0", float32 of one shape, and "generator", uint8.
    """
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(_array(values[name]), dtype) for name, dtype in _DTYPES.items()}
    return bytes(save(arrays, {"consisid": json.dumps(_header(step, origin) | {"digest": _digest(arrays)})}))


def read(data: bytes, origin: Origin, plan: Plan) -> tuple[int, Values]:
    """The step that comes next, and the values that `write` was given, as NumPy arrays.

    Raises `CheckpointRefused` for what is none, is damaged, or belongs to another request, bundle or kind of device.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        if len(data) > _MOST_BYTES:
            raise ValueError("it is too large")
        size = int.from_bytes(data[:8], "little")
        if size > _MOST_HEADER:
            raise ValueError("its header is too large")
        header = parse_json(parse_json(data[8 : 8 + size])["__metadata__"]["consisid"])
        step = header["step"]
        wanted = _header(step, origin)
        for name in ("format", "bundle", "device", "request"):
            if header[name] != wanted[name]:
                raise CheckpointRefused(f"the checkpoint is of another {name}; send the request without it")
        arrays = load(data)
        if header["digest"] != _digest(arrays) or {k: v.dtype for k, v in arrays.items()} != _DTYPES:
            raise ValueError("its content is damaged")
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # Of libraries' words none: they quote what the caller wrote.
        reason = str(error) if type(error) is ValueError else "its header or its content cannot be read"
        raise CheckpointRefused(f"this is no checkpoint: {reason[:100]}") from None
    latents = arrays["latents"]
    frames = latents.shape[1:2] == (plan.latent_frames,) and latents.ndim == 5
    finite = all(np.isfinite(arrays[name]).all() for name in ("latents", "x0"))
    if not isinstance(step, int) or not 0 < step < plan.steps or not frames or not finite:
        raise CheckpointRefused("the checkpoint does not fit the request; send the request without it")
    return step, {name: array.copy() for name, array in arrays.items()}  # writable, as torch wants them


def _header(step: int, origin: Origin) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "step": step,
        "bundle": origin.bundle,
        "device": origin.device,
        "request": origin.request,
    }


def _array(value: Any) -> Any:
    return value if isinstance(value, np.ndarray) else value.numpy(force=True)


def _digest(arrays: dict[str, Any]) -> str:
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(arrays[name].tobytes())
    return found.hexdigest()
