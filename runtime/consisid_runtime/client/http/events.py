"""Server-sent events, and what those of a stream say. No input or output."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from consisid_runtime.client.answer import sent_error
from consisid_runtime.errors import ServerError
from consisid_runtime.files.json_file import parse_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BYTES, _JSON = ("preview", "checkpoint", "video"), ("event", "info")


class Events:
    """Reads the data of events from a body that comes in pieces."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []

    def read(self, piece: bytes) -> Iterator[bytes]:
        """The data of the events that end in this piece."""
        # The end of a line may be two pieces away: only what is new is searched.
        *lines, rest = piece.split(b"\n")
        for line in lines:
            self._line += line
            if data := self._end(bytes(self._line.removesuffix(b"\r"))):
                yield data
            self._line.clear()
        self._line += rest

    def _end(self, line: bytes) -> bytes:
        """The data of the event that ends with this line; empty where none does."""
        if line.startswith(b"data:"):
            self._data.append(line.removeprefix(b"data:").removeprefix(b" "))
        if line:
            return b""
        data = b"\n".join(self._data)
        self._data.clear()
        return data


def read_answer(data: bytes, shown: str) -> dict[str, NDArray[Any]]:
    """One event as the outputs it has. Raises the error that it says, or `ServerError` for anything else."""
    try:
        given = parse_json(data)
        answer = {name: _array(name, given[name]) for name in given.keys() & {*_BYTES, *_JSON}}
        text, seconds = given.get("error"), given.get("retry_after")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServerError(f"{shown} sent an event that is none: {data[:200].decode(errors='replace')}") from error
    if text is None:
        return answer
    raise sent_error(str(text), float(seconds) if isinstance(seconds, int | float) else None)


def _array(name: str, value: Any) -> NDArray[Any]:
    if name in _BYTES:
        return np.frombuffer(base64.b64decode(value, validate=True), np.uint8)
    return np.array([json.dumps(value).encode()], np.object_)
