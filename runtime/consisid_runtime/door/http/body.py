"""Reads a request's body within bounds, and what it asks for."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

from starlette.requests import Request

from consisid_runtime.door.admission.budget import Budget, Reservation
from consisid_runtime.door.description import signature_of
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.request import MOST_LISTED, Asked, Tensor, check, elements
from consisid_runtime.errors import MalformedRequest, RequestCancelled, RequestTooLarge
from consisid_runtime.files.json_file import parse_json

LENGTH = "inference-header-content-length"
_DIGITS = 12


@asynccontextmanager
async def read(
    request: Request, owner: str, budget: Budget, limits: Limits, most_json: int
) -> AsyncIterator[tuple[bytearray, int, Reservation]]:
    """The body, how much of it is JSON, and the memory that is reserved for it inside.

    Args:
        most_json: bytes of a body without binary data.

    Raises `MalformedRequest`, `RequestTooLarge`, `Busy`, or `RequestCancelled` for a caller who leaves.
    """
    fields = request.headers
    if fields.get("content-encoding", "identity") != "identity":
        raise MalformedRequest("a body comes without content-encoding")
    if "transfer-encoding" in fields or not (size := number(fields, "content-length")):
        raise MalformedRequest("a body comes with its content-length, not in chunks")
    head = number(fields, LENGTH)
    if head is not None and head > min(size, limits.header):
        raise RequestTooLarge(f"the JSON of a binary request has at most {min(size, limits.header)} bytes, got {head}")
    most = most_json if head is None else limits.body
    if size > most:
        hint = "; send the image as binary data" if head is None else ""
        raise RequestTooLarge(f"the body has {size} bytes, at most {most} are read{hint}")
    async with budget.reserve(owner, size) as held:
        body = bytearray()
        while True:
            event = await request.receive()
            if event["type"] != "http.request":
                raise RequestCancelled("the caller left before the request had arrived")
            body += event["body"]
            if not event.get("more_body"):
                break
        yield body, size if head is None else head, held


def parse(model: str, body: bytearray, head: int, limits: Limits) -> tuple[Asked, dict[str, bool]]:
    """What is asked for, and for each output whether it goes back in binary form. Raises as `check`."""
    with _reading():
        top = _top(body, head, limits)
        parameters = _kind(top.get("parameters", {}), dict, "parameters")
        listed = _list(top, "outputs") if "outputs" in top else []
        tensors, place = [], head
        for entry in _list(top, "inputs"):
            tensor, place = _tensor(entry, body, place)
            tensors.append(tensor)
        identifier = _identifier(top)
        all_binary = parameters.pop("binary_data_output", False) is True
        binary = [(_kind(entry.get("name"), str, "a name"), _binary(entry, all_binary)) for entry in listed]
    if place != len(body):
        raise MalformedRequest(f"{len(body) - place} bytes are left behind the last tensor")
    asked = check(model, tensors, parameters, [name for name, _ in binary], identifier)
    return asked, dict(binary) or dict.fromkeys(asked.outputs, all_binary)


def parse_generate(model: str, body: bytearray, head: int, limits: Limits) -> Asked:
    """What is asked for by the generate extension, or in the form of `infer`, which has "inputs". Raises as `check`."""
    with _reading():
        top = _top(body, head, limits)
        asked = None if head < len(body) or "inputs" in top else _flat(model, top)
    if asked is None:
        asked, _ = parse(model, body, head, limits)
    if "raw_frames" in asked.parameters:
        raise MalformedRequest("frames are not sent as JSON; ask for them by infer or ModelStreamInfer")
    return replace(asked, outputs=tuple(name for name in asked.outputs if name != "frames"))


def _flat(model: str, top: dict[str, Any]) -> Asked:
    """Inputs and parameters lie beside each other. Raises `ValueError`, and as `check`."""
    identifier = _identifier(top)
    parameters = _kind(top.pop("parameters", {}), dict, "parameters")
    tensors = []
    for port in signature_of(model).inputs:
        if port.name not in top:
            continue
        text = _kind(top.pop(port.name), str, port.name).encode(errors="surrogatepass")
        content = [text] if port.dtype == "BYTES" else _from_base64(port.name, text)
        tensors.append(Tensor(port.name, port.dtype, [len(content)], content))
    if twice := top.keys() & parameters.keys():
        raise ValueError(f"{min(twice)[:40]!r} stands in parameters and beside them")
    return check(model, tensors, parameters | top, [], identifier)


def _identifier(top: dict[str, Any]) -> str:
    """KServe's `id`, taken out. Raises `ValueError` also for half a character, which no answer could carry."""
    found: str = _kind(top.pop("id", ""), str, "id")[:256]
    found.encode()
    return found


def _from_base64(name: str, text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError(f"{name} is not Base64 (A–Z a–z 0–9 + / and the = at its end, without line breaks)") from None


@contextmanager
def _reading() -> Iterator[None]:
    """What is not KServe's JSON raises `MalformedRequest`."""
    try:
        yield
    except ValueError as error:
        raise MalformedRequest(f"the body is not KServe's JSON: {str(error)[:200]}") from None
    except RecursionError:
        raise MalformedRequest("the JSON is nested too deeply") from None


def _top(body: bytearray, head: int, limits: Limits) -> dict[str, Any]:
    """The JSON object that a body begins with. Raises `ValueError`, `RecursionError` or `MalformedRequest`."""
    if body.count(b"[", 0, head) + body.count(b"{", 0, head) > limits.brackets:
        raise MalformedRequest(
            f"the JSON has more than {limits.brackets} brackets; send texts with many in binary form"
        )
    found: dict[str, Any] = _kind(parse_json(bytes(memoryview(body)[:head]), finite=False), dict, "the JSON")
    return found


def _tensor(entry: dict[str, Any], body: bytearray, place: int) -> tuple[Tensor, int]:
    """One input, and where the next one's bytes begin. Raises `ValueError`."""
    name, datatype = _kind(entry.get("name"), str, "a name"), _kind(entry.get("datatype"), str, "a datatype")
    shape = _kind(entry.get("shape"), list, "a shape")
    if len(shape) > MOST_LISTED or not all(type(size) is int and 0 <= size < 2**63 for size in shape):
        raise ValueError(f"the shape of {name[:40]!r} is no list of at most {MOST_LISTED} sizes")
    own = _kind(entry.get("parameters", {}), dict, "an input's parameters")
    if own.keys() - {"binary_data_size"}:
        raise ValueError(f"the only parameter of an input is binary_data_size, got {sorted(own)[:4]}")
    content: bytes | list[bytes]
    if "binary_data_size" in own:
        size = own["binary_data_size"]
        if type(size) is not int or not 0 <= size <= len(body) - place:
            raise ValueError(f"binary_data_size of {name[:40]!r} does not fit the body")
        content = bytes(memoryview(body)[place : place + size])
        place += size
        if datatype == "BYTES":
            content = elements(content)
    else:
        data = _kind(entry.get("data"), list, "data")
        content = texts(data) if datatype == "BYTES" else numbers(data)
    return Tensor(name, datatype, shape, content), place


def texts(data: list[Any]) -> list[bytes]:
    """The elements of BYTES in JSON. Raises `ValueError`."""
    if len(data) > MOST_LISTED or not all(isinstance(text, str) for text in data):
        raise ValueError(f"the data of BYTES is a list of at most {MOST_LISTED} texts")
    return [text.encode(errors="surrogatepass") for text in data]


def numbers(data: list[Any]) -> bytes:
    """UINT8 in JSON. Raises `ValueError`."""
    try:
        return bytes(data)
    except TypeError:
        raise ValueError("the data of UINT8 is a list of whole numbers") from None


def _list(top: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = _kind(top.get(name), list, name)
    if len(found) > MOST_LISTED:
        raise ValueError(f"{name} has {len(found)} entries")
    return [_kind(entry, dict, f"an entry of {name}") for entry in found]


def _binary(entry: dict[str, Any], default: bool) -> bool:
    own = _kind(entry.get("parameters", {}), dict, "an output's parameters")
    if own.keys() - {"binary_data"}:
        raise ValueError(f"the only parameter of an output is binary_data, got {sorted(own)[:4]}")
    return own.get("binary_data", default) is True


def _kind(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{what} must be a {kind.__name__}, got a {type(value).__name__}")
    return value


def number(fields: Mapping[str, str], name: str) -> int | None:
    """Of a header; None where it is missing. Raises `MalformedRequest`."""
    value = fields.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= _DIGITS):
        raise MalformedRequest(f"{name} must be a whole number of at most {_DIGITS} digits, got {value[:40]!r}")
    return int(value)
