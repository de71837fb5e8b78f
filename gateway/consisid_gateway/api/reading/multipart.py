"""A form of `multipart/form-data`, parsed while it arrives, with bounds on its parts and their heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from consisid_gateway.errors import BodyUnreadable
from consisid_runtime.errors import RequestTooLarge

MOST_PARTS = 64
MOST_TEXT = 2**17
"""Bytes of a part that is no file: more than the longest prompt."""
_MOST_HEADS, _MOST_HEAD = 8, 4096
_PLAIN = (b"binary", b"8bit", b"7bit")
"""Transfer encodings that encode nothing."""


class Form:
    """Takes a body in pieces.

    Args:
        content_type: with the boundary.
        most_file: bytes of a file.

    Every method raises `BodyUnreadable` and `RequestTooLarge`.

    Attributes:
        parts: name → a text, or the bytes of a file.
    """

    def __init__(self, content_type: str, most_file: int) -> None:
        self.parts: dict[str, str | bytes] = {}
        self._most_file = most_file
        self._field, self._value = bytearray(), bytearray()
        self._disposition, self._content = b"", bytearray()
        self._name, self._is_file, self._count, self._ended = "", False, 0, False
        _, found = parse_options_header(content_type)
        if not (boundary := found.get(b"boundary")):
            raise BodyUnreadable("the content type has no boundary")
        callbacks: dict[str, Callable[..., None]] = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._head,
            "on_headers_finished": self._named,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }
        wanted: Any = callbacks
        with _readable():
            self._parser = MultipartParser(boundary, wanted, max_header_count=_MOST_HEADS, max_header_size=_MOST_HEAD)

    def write(self, piece: bytes) -> None:
        with _readable():
            self._parser.write(piece)

    def close(self) -> None:
        """The body has ended."""
        if not self._ended:
            raise BodyUnreadable("the form ends before its last boundary")

    def _begin(self) -> None:
        self._count += 1
        if self._count > MOST_PARTS:
            raise RequestTooLarge(f"a form has at most {MOST_PARTS} parts")
        self._disposition, self._content = b"", bytearray()

    def _head(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        elif self._field.lower() == b"content-transfer-encoding" and bytes(self._value).lower() not in _PLAIN:
            raise BodyUnreadable("a part comes as it is, without a transfer encoding")
        self._field.clear()
        self._value.clear()

    def _named(self) -> None:
        kind, found = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in found:
            raise BodyUnreadable("a part has no name")
        self._name, self._is_file = found[b"name"].decode(errors="replace"), b"filename" in found
        if self._name in self.parts:
            raise BodyUnreadable(f"the field {self._name[:80]!r} is given twice")

    def _data(self, data: bytes, start: int, end: int) -> None:
        most = self._most_file if self._is_file else MOST_TEXT
        if len(self._content) + end - start > most:
            raise RequestTooLarge(f"the field {self._name[:80]!r} has more than {most} bytes")
        self._content += memoryview(data)[start:end]

    def _end(self) -> None:
        if self._is_file:
            self.parts[self._name] = bytes(self._content)
            return
        try:
            self.parts[self._name] = self._content.decode()
        except UnicodeDecodeError as error:
            raise BodyUnreadable(f"the field {self._name[:80]!r} is not UTF-8 at byte {error.start}") from None

    def _finish(self) -> None:
        self._ended = True


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except FormParserError as error:
        raise BodyUnreadable(f"the form is damaged: {str(error)[:200]}") from None
