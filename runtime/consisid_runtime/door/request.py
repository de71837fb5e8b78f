"""What a caller asked for, checked: the door forwards nothing else, whatever the protocol said besides."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from consisid_runtime.client.message import infer_request
from consisid_runtime.client.transport import Parameters
from consisid_runtime.door.description import signature_of
from consisid_runtime.errors import InvalidOption, MalformedRequest
from consisid_runtime.files.image_file import check_bytes
from consisid_runtime.options import check_prompt
from consisid_runtime.signatures import Port
from consisid_runtime.wire import read_options, write_parameters

MOST_LISTED = 8
"""Inputs, outputs, sizes of a shape, elements of BYTES that are looked at; public models have fewer."""

_PARAMETERS = 64
_URGENT = 1
"""Triton server's highest priority; every other number is an ordinary request here."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input as it came. `content` are the bytes of UINT8, or the elements of BYTES."""

    name: str
    datatype: str
    shape: Sequence[int]
    content: bytes | Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, checked.

    Attributes:
        parameters: options and extras that differ from their defaults.
        outputs: names, in the order in which they were asked for.
        urgent: goes before all that are not.
        seconds: until its deadline; None where it named none.
        identifier: KServe's `id`, to be sent back; may be empty.
    """

    model: str
    image: bytes
    prompt: str
    parameters: Parameters
    outputs: tuple[str, ...]
    urgent: bool
    seconds: float | None
    identifier: str

    @property
    def size(self) -> int:
        """Bytes that it keeps in memory."""
        return len(self.image) + len(self.prompt)

    def message(self, extra: Parameters) -> Any:
        """The ModelInferRequest for Triton server, with further parameters of the door's own."""
        inputs: dict[str, bytes | str] = {"image": self.image, "prompt": self.prompt}
        return infer_request(self.model, inputs, {**self.parameters, **extra}, self.outputs)


def check(
    model: str, tensors: Iterable[Tensor], parameters: Mapping[str, Any], outputs: Sequence[str], identifier: str
) -> Asked:
    """Raises what the models would raise, `MalformedRequest`, or `NotFound` for a model that is not public."""
    signature = signature_of(model)
    given = {tensor.name: tensor for tensor in tensors}
    wanted = {port.name: port for port in signature.inputs}
    if given.keys() != wanted.keys():
        raise MalformedRequest(f"the inputs of {model} are {', '.join(wanted)}, each once; got {_names(given)}")
    for name, port in wanted.items():
        _fits(port, given[name])
    known = [port.name for port in signature.outputs]
    if len(set(outputs)) < len(outputs) or not set(outputs) <= set(known):
        raise MalformedRequest(f"the outputs of {model} are {', '.join(known)}, each once; got {_names(outputs)}")
    values, urgent, seconds = _order(parameters)
    options, extras = read_options(values)
    image, (prompt,) = given["image"].content, given["prompt"].content
    assert isinstance(image, bytes) and isinstance(prompt, bytes)
    check_bytes(len(image))
    try:
        text = check_prompt(prompt.decode())
    except UnicodeDecodeError as error:
        raise InvalidOption(f"the prompt is not UTF-8: {error.reason} at byte {error.start}") from None
    return Asked(
        model,
        image,
        text,
        write_parameters(options, extras),
        tuple(outputs or known),
        urgent,
        seconds,
        identifier,
    )


def elements(raw: bytes) -> list[bytes]:
    """The elements of a BYTES tensor, each behind its length as four little-endian bytes. Raises `ValueError`."""
    found: list[bytes] = []
    place = 0
    while place < len(raw):
        if len(found) == MOST_LISTED or len(raw) - place < 4:
            raise ValueError("BYTES are elements, each behind its length in four bytes")
        (size,) = struct.unpack_from("<I", raw, place)
        place += 4 + size
        if place > len(raw):
            raise ValueError("an element of BYTES is longer than its tensor")
        found.append(raw[place - size : place])
    return found


def _fits(port: Port, tensor: Tensor) -> None:
    if tensor.datatype != port.dtype:
        raise MalformedRequest(f"{port.name} must be {port.dtype}, got {tensor.datatype[:40]!r}")
    shape = list(tensor.shape)
    sizes = zip(shape, port.shape, strict=False)
    fits = len(shape) == len(port.shape) and all(isinstance(wanted, str) or size == wanted for size, wanted in sizes)
    if not fits or math.prod(shape) != len(tensor.content):
        shown = [size if isinstance(size, int) else len(tensor.content) for size in port.shape]
        raise MalformedRequest(f"{port.name} with this content has the shape {shown}, got {str(shape[:8])[:100]}")


def _order(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], bool, float | None]:
    """The parameters without KServe's `priority` and `timeout` (in µs, 0 for none), and what these say."""
    if len(parameters) > _PARAMETERS:
        raise MalformedRequest(f"a request has at most {_PARAMETERS} parameters, got {len(parameters)}")
    values = dict(parameters)
    if empty := [name for name, value in values.items() if value is None]:
        raise InvalidOption(f"{empty[0][:40]!r} has no value; leave it out for its default")
    order = {}
    for name in ("priority", "timeout"):
        order[name] = values.pop(name, 0)
        if isinstance(order[name], bool) or not isinstance(order[name], int) or not 0 <= order[name] < 2**63:
            raise InvalidOption(f"{name} must be a whole number from 0 to 2⁶³ − 1, got {str(order[name])[:40]!r}")
    return values, order["priority"] == _URGENT, order["timeout"] / 1e6 or None


def _names(found: Iterable[str]) -> str:
    shown = [name[:40] for name in found]
    return f"{', '.join(map(repr, shown[:8])) or 'none'}{' and more' if len(shown) > 8 else ''}"
