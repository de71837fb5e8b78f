"""Checks what a server answered: it may be another server, or one of another version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from consisid_runtime.errors import Busy, ConsisIDError, ServerError, from_wire
from consisid_runtime.files.json_file import parse_json
from consisid_runtime.signatures import Port

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPES = {"UINT8": np.uint8, "FP32": np.float32, "INT64": np.int64, "BYTES": np.object_}
"""KServe's names of the dtypes of a video's outputs → NumPy's."""


def check_answer(ports: Iterable[Port], answer: Mapping[str, NDArray[Any]]) -> None:
    """Raises `ServerError` for an output that is missing or of another dtype or shape than its port, or no video."""
    check_ports(ports, answer)
    if not answer["video"].size:
        raise ServerError("the server answered with an empty video")


def check_ports(ports: Iterable[Port], answer: Mapping[str, NDArray[Any]]) -> None:
    """Raises `ServerError` for an output that is missing or of another dtype or shape than its port."""
    for port in ports:
        if port.name not in answer:
            raise ServerError(f"the server answered without the output {port.name!r}; it sent {sorted(answer)}")
        array = answer[port.name]
        fits = len(array.shape) == len(port.shape) and all(
            isinstance(wanted, str) or size == wanted for size, wanted in zip(array.shape, port.shape, strict=True)
        )
        if not fits or array.dtype != DTYPES[port.dtype]:
            raise ServerError(
                f"the server answered with {port.name!r} as {array.dtype} {list(array.shape)}; "
                f"wanted {port.dtype} {list(port.shape)}"
            )


def sent_error(text: str, retry_after: float | None) -> ConsisIDError:
    """The typed error that a server sent, with the seconds after which a busy one expects room."""
    error = from_wire(text)
    if isinstance(error, Busy):
        error.retry_after = retry_after
    return error


def seconds_of(answer: Mapping[str, NDArray[Any]]) -> float | None:
    """What a video took to compute, by its `info`; None where that does not say."""
    try:
        return float(sum(parse_json(answer["info"][0])["seconds"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None


def read_info(text: bytes | str) -> dict[str, Any]:
    """A video's `info`. Raises `ServerError` for anything but a JSON object."""
    try:
        info = parse_json(text)
    except (ValueError, TypeError):
        info = None
    if not isinstance(info, dict):
        raise ServerError(f"the server answered with an info that is not a JSON object: {text[:200]!r}")
    return info
