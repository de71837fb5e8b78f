"""What a caller asked for, checked: the door forwards nothing else, whatever the protocol said besides."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import service_pb2

from consisid_runtime.client.message import infer_request
from consisid_runtime.client.transport import Parameters
from consisid_runtime.door.description import signature_of
from consisid_runtime.errors import InvalidOption, MalformedRequest, RequestTooLarge
from consisid_runtime.files.image_file import MAX_BYTES, check_bytes
from consisid_runtime.options import Options, check_prompt
from consisid_runtime.signatures import ENSEMBLE, STREAM, Port
from consisid_runtime.wire import (
    HIGHEST,
    PRIORITY,
    TICKET,
    TRIAL,
    URGENT,
    Extras,
    read_options,
    required_inputs,
    write_parameters,
)

MOST_LISTED = 8
"""Inputs, outputs, sizes of a shape, elements of BYTES that are looked at; public models have fewer."""

CLOSING = "triton_enable_empty_final_response"
"""Triton server's parameter: whether an empty response stands behind the last one of a stream."""

SMALL = 2**16
"""Bytes of a request that is read also where there is no room for one more: it may ask for an estimate."""

REQUEST = "request"
"""The kind of one that makes something for its caller."""

_PARAMETERS = 64
_OF_EVENTS = [port.name for port in STREAM.outputs if port not in ENSEMBLE.outputs]


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
        model: that was asked; `STREAM` runs it in any case.
        checkpoint: that it goes on from; None to begin.
        parameters: options and extras that differ from their defaults.
        outputs: names, in the order in which they were asked for.
        urgent: goes before all that are not.
        seconds: until its deadline; None where it named none.
        identifier: KServe's `id`, to be sent back; may be empty.
        closing: wants an empty response behind the last one of a stream.
    """

    model: str
    image: bytes | None
    prompt: str | None
    checkpoint: bytes | None
    options: Options
    parameters: Parameters
    outputs: tuple[str, ...]
    urgent: bool
    seconds: float | None
    identifier: str
    closing: bool

    @property
    def size(self) -> int:
        """Bytes that it keeps in memory."""
        return sum(len(part or "") for part in (self.image, self.prompt, self.checkpoint))

    @property
    def quick(self) -> bool:
        """Whether it computes no video."""
        return self.parameters.get("action", "generate") != "generate"

    @property
    def kind(self) -> str:
        """For the log: "request", "estimate" or "trial"."""
        return REQUEST if not (self.estimates or self.trial) else str(self.parameters["action"])

    @property
    def estimates(self) -> bool:
        """Whether it asks what a video would take; the door answers."""
        return self.parameters.get("action") == "estimate"

    @property
    def trial(self) -> bool:
        """Whether it asks for a trial: see `stages.trial`."""
        return self.parameters.get("action") == TRIAL

    @property
    def streams(self) -> bool:
        """Whether the caller wants events."""
        return self.model == STREAM.name

    def message(self, ticket: str, identifier: str) -> Any:
        """The ModelInferRequest for Triton server, with the door's own parameters and its own id."""
        found = {"image": self.image, "prompt": self.prompt, "checkpoint": self.checkpoint}
        inputs: dict[str, bytes | str] = {name: value for name, value in found.items() if value is not None}
        outputs = {*self.outputs, "info", *(_OF_EVENTS if self.streams else ())}
        own: Parameters = {TICKET: ticket, URGENT: self.urgent}
        request = infer_request(STREAM.name, inputs, {**self.parameters, **own}, sorted(outputs))
        request.id = identifier
        return request

    def answer(self, response: Any) -> Any:
        """The response with the outputs that were asked for, in their order, as one of the model that was asked."""
        chosen = service_pb2.ModelInferResponse(model_name=self.model, model_version="1", id=self.identifier)
        found = {tensor.name: place for place, tensor in enumerate(response.outputs)}
        for name in self.outputs:
            if name in found:
                chosen.outputs.add().CopyFrom(response.outputs[found[name]])
                chosen.raw_output_contents.append(response.raw_output_contents[found[name]])
        return chosen


def check(
    model: str, tensors: Iterable[Tensor], parameters: Mapping[str, Any], outputs: Sequence[str], identifier: str
) -> Asked:
    """Raises what the models would raise, `MalformedRequest`, or `NotFound` for a model that is not public."""
    signature = signature_of(model)
    listed = list(tensors)
    given = {tensor.name: tensor for tensor in listed}
    wanted = {port.name: port for port in signature.inputs}
    needed = {port.name for port in signature.inputs if not port.optional}
    if len(given) < len(listed) or not needed <= given.keys() <= wanted.keys():
        names = _names(tensor.name for tensor in listed)
        raise MalformedRequest(f"the inputs of {model} are {', '.join(wanted)}, each once; got {names}")
    for name, tensor in given.items():
        _fits(wanted[name], tensor)
    known = [port.name for port in signature.outputs]
    if len(set(outputs)) < len(outputs) or not set(outputs) <= set(known):
        raise MalformedRequest(f"the outputs of {model} are {', '.join(known)}, each once; got {_names(outputs)}")
    values, urgent, seconds = _order(parameters)
    options, extras = read_options(values)
    needs = required_inputs(extras)
    if model != STREAM.name and (extras.identity or extras.action != Extras().action):
        raise InvalidOption(f"identity and action are for {STREAM.name}")
    if given.keys() - {"checkpoint"} != needs:
        raise MalformedRequest(
            f"this request takes the inputs {', '.join(sorted(needs)) or 'none'}; got {_names(given)}"
        )
    image, checkpoint = (_bytes(given[name]) if name in given else None for name in ("image", "checkpoint"))
    if image is not None:
        check_bytes(len(image))
    if len(image or b"") + len(checkpoint or b"") > MAX_BYTES:
        raise RequestTooLarge(f"image and checkpoint have at most {MAX_BYTES} bytes together")
    return Asked(
        model,
        image,
        _text(given["prompt"]) if "prompt" in given else None,
        checkpoint,
        options,
        write_parameters(options, extras),
        tuple(outputs or known),
        urgent,
        seconds,
        identifier,
        parameters.get(CLOSING) is True,
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


def _bytes(tensor: Tensor) -> bytes:
    assert isinstance(tensor.content, bytes)
    return tensor.content


def _text(tensor: Tensor) -> str:
    (prompt,) = tensor.content
    assert isinstance(prompt, bytes)
    try:
        return check_prompt(prompt.decode())
    except UnicodeDecodeError as error:
        raise InvalidOption(f"the prompt is not UTF-8: {error.reason} at byte {error.start}") from None


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
    for name in (PRIORITY, "timeout"):
        order[name] = values.pop(name, 0)
        if isinstance(order[name], bool) or not isinstance(order[name], int) or not 0 <= order[name] < 2**63:
            raise InvalidOption(f"{name} must be a whole number from 0 to 2⁶³ − 1, got {str(order[name])[:40]!r}")
    return values, order[PRIORITY] == HIGHEST, order["timeout"] / 1e6 or None


def _names(found: Iterable[str]) -> str:
    shown = [name[:40] for name in found]
    return f"{', '.join(map(repr, shown[:8])) or 'none'}{' and more' if len(shown) > 8 else ''}"
