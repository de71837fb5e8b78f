"""What the door says of itself and of its public models, from their signatures; the composing ones are hidden."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from consisid_runtime.errors import NotFound
from consisid_runtime.signatures import ENSEMBLE, STREAM, Port, Signature

PUBLIC = {ENSEMBLE.name: ENSEMBLE, STREAM.name: STREAM}
"""Model → its signature."""

VERSION = "1"
_CONFIG_TYPES = {"BYTES": "TYPE_STRING"}

Json = dict[str, Any]


def signature_of(model: str, number: str = "") -> Signature:
    """Raises `NotFound` for another model than the public ones, or another version than 1."""
    if model not in PUBLIC or number not in ("", VERSION):
        raise NotFound(
            f"there is no model {model[:40]!r} of this version; there is {', '.join(PUBLIC)}, version {VERSION}"
        )
    return PUBLIC[model]


def server() -> Json:
    """KServe's server metadata."""
    try:
        number = version("consisid-runtime")
    except PackageNotFoundError:  # run from a source tree
        number = "0"
    return {
        "name": "consisid",
        "version": number,
        "extensions": ["binary_tensor_data", "generate", "parameters", "model_configuration"],
    }


def metadata(signature: Signature) -> Json:
    """KServe's model metadata, as Triton server has it."""
    return {
        "name": signature.name,
        "versions": [VERSION],
        "platform": "ensemble",
        "inputs": [{"name": p.name, "datatype": p.dtype, "shape": _sizes(p)} for p in signature.inputs],
        "outputs": [{"name": p.name, "datatype": p.dtype, "shape": _sizes(p)} for p in signature.outputs],
    }


def config(signature: Signature) -> Json:
    """Triton server's model configuration, as far as a caller needs it."""

    def ports(found: tuple[Port, ...]) -> list[Json]:
        return [
            {"name": p.name, "data_type": _CONFIG_TYPES.get(p.dtype, f"TYPE_{p.dtype}"), "dims": _sizes(p)}
            | ({"optional": True} if p.optional else {})
            for p in found
        ]

    return {
        "name": signature.name,
        "platform": "ensemble",
        "max_batch_size": 0,
        "input": ports(signature.inputs),
        "output": ports(signature.outputs),
        "model_transaction_policy": {"decoupled": signature is STREAM},
    }


def index(*, ready: bool) -> list[Json]:
    """Triton server's index of its repository: the public models."""
    return [{"name": name, "version": VERSION, "state": "READY" if ready else "UNAVAILABLE"} for name in PUBLIC]


def _sizes(port: Port) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in port.shape]
