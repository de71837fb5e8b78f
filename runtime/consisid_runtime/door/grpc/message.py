"""A ModelInferRequest from its bytes: what protobuf would make of hostile ones is bounded before it sees them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from consisid_runtime.door.description import signature_of
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.request import MOST_LISTED, Asked, Tensor, check, elements
from consisid_runtime.errors import ConsisIDError, MalformedRequest, RequestTooLarge

_LENGTH_DELIMITED = 2
_FIELDS = 256
_RAW = service_pb2.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number
_OWN = {"binary_data", "binary_data_size"}
"""Parameters of tensors that KServe's own SDK takes over from HTTP; they mean nothing here."""


def parse(data: bytes, limits: Limits) -> Asked:
    """Raises as `check`."""
    plain, raws = _split(data, limits)
    try:
        request = service_pb2.ModelInferRequest.FromString(plain)
    except DecodeError:
        raise MalformedRequest("this is no ModelInferRequest") from None
    signature = signature_of(request.model_name, request.model_version)
    if len(request.inputs) > MOST_LISTED or len(request.outputs) > MOST_LISTED:
        raise MalformedRequest(f"{len(request.inputs)} inputs and {len(request.outputs)} outputs are too many")
    for tensor in (*request.inputs, *request.outputs):
        if strange := set(tensor.parameters) - _OWN:
            raise MalformedRequest(
                f"a tensor takes no parameters here (no classification, no memory): {_shown(strange)}"
            )
    if raws and len(raws) != len(request.inputs):
        raise MalformedRequest(f"{len(raws)} raw_input_contents for {len(request.inputs)} inputs")
    try:
        tensors = [_tensor(entry, raws[place] if raws else None) for place, entry in enumerate(request.inputs)]
    except ValueError as error:
        raise MalformedRequest(str(error)[:200]) from None
    parameters = {name: _value(given) for name, given in request.parameters.items()}
    return check(signature.name, tensors, parameters, [output.name for output in request.outputs], request.id[:256])


def identifier(data: bytes, limits: Limits) -> str:
    """The `id` of a ModelInferRequest that may be refused; empty for what is none."""
    try:
        return str(service_pb2.ModelInferRequest.FromString(_split(data, limits)[0]).id)[:256]
    except (DecodeError, ConsisIDError):
        return ""


def _split(data: bytes, limits: Limits) -> tuple[bytes, list[memoryview]]:
    """The message without its raw tensors, and these. 12 MB of empty inputs would become 600 MB of objects."""
    view, plain, raws = memoryview(data), [], []
    size = 0
    for number, start, content, end in _fields(view):
        if number == _RAW:
            raws.append(view[content:end])
        else:
            plain.append(view[start:end])
            size += end - start
        if size > limits.plain:
            raise RequestTooLarge(f"beside raw_input_contents a message has at most {limits.plain} bytes")
        if len(raws) > MOST_LISTED or len(plain) > _FIELDS:
            raise MalformedRequest("a request has two raw_input_contents, and few fields beside")
    return b"".join(plain), raws


def _fields(view: memoryview) -> Iterator[tuple[int, int, int, int]]:
    """Of each field its number, and where it, its content and the next begin. Raises `MalformedRequest`."""
    place = 0
    while place < len(view):
        start = place
        tag, place = _varint(view, place)
        length, content = _varint(view, place)
        place = content + length
        if tag & 7 != _LENGTH_DELIMITED or place > len(view):
            raise MalformedRequest("this is no ModelInferRequest")
        yield tag >> 3, start, content, place


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 63, 7):
        if place == len(view):
            break
        byte = view[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise MalformedRequest("this is no ModelInferRequest")


def _tensor(entry: Any, raw: memoryview | None) -> Tensor:
    """Raises `ValueError`."""
    text = entry.datatype == "BYTES"
    if raw is not None:
        content: bytes | list[bytes] = elements(bytes(raw)) if text else bytes(raw)
    elif text:
        content = list(entry.contents.bytes_contents)
    else:
        content = bytes(entry.contents.uint_contents)
    return Tensor(entry.name, entry.datatype, entry.shape, content)


def _value(parameter: Any) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, kind) if kind else None


def _shown(names: set[str]) -> str:
    return ", ".join(repr(name[:40]) for name in sorted(names)[:4])
