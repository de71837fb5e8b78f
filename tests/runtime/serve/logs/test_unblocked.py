"""A log whose reader stands still blocks nobody."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO

import pytest

from consisid_runtime.serve.logs import unblocked
from consisid_runtime.serve.logs.unblocked import Unblocked

LINES = 20_000
"""With 100 bytes each, more than a pipe and the queue hold."""


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb", buffering=0) as writer:
        yield reader, writer


def test_what_is_written_arrives_in_order() -> None:
    stream = io.BytesIO()
    with Unblocked(stream) as log:
        for number in range(1000):
            assert log.write(b"%d\n" % number) == len(b"%d\n" % number)
    assert stream.getvalue() == b"".join(b"%d\n" % number for number in range(1000))


def test_a_reader_that_stands_still(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    reader, writer = pipe
    begin, written = time.monotonic(), 0
    with Unblocked(writer) as log:
        while written < LINES:
            log.write(b"%099d\n" % written)
            written += 1
        assert time.monotonic() - begin < 5
        read: list[bytes] = []
        goes_on = threading.Thread(target=lambda: read.extend(reader), daemon=True)
        goes_on.start()
        while not read or int(read[-1].split()[0]) < LINES:
            log.write(b"%099d\n" % written)
            written += 1
            time.sleep(0.01)
    writer.close()
    goes_on.join(10)
    place = 0
    for line in read:
        if b"were dropped" in line:
            place += int(line.split()[0])
        else:
            assert int(line) == place
            place += 1
    assert place == written and len(read) < written


def test_what_was_dropped_last_is_told_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, goes_on = io.BytesIO(), threading.Event()
    monkeypatch.setattr(unblocked, "_MOST", 2)
    monkeypatch.setattr(stream, "flush", goes_on.wait, raising=False)
    with Unblocked(stream) as log:
        for number in range(10):
            log.write(b"%d\n" % number)
        goes_on.set()
    *kept, note = stream.getvalue().splitlines()
    assert note == b"%d lines of the log were dropped: nobody read them" % (10 - len(kept))


def test_a_reader_that_never_goes_on(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    reader, writer = pipe
    begin = time.monotonic()
    with Unblocked(writer) as log:
        for _ in range(LINES):
            log.write(b"x" * 100)
    assert time.monotonic() - begin < 5
    # Whatever waits still ends with the process; here the test ends it.
    threading.Thread(target=reader.read, daemon=True).start()


def test_a_reader_that_is_gone(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    reader, writer = pipe
    reader.close()
    with Unblocked(writer) as log:
        for _ in range(10):
            log.write(b"lost\n")
    with pytest.raises(BrokenPipeError):
        writer.write(b"lost, too")


def test_text_of_a_logging_handler_passes() -> None:
    stream = io.BytesIO()
    with Unblocked(stream) as log:
        text = io.TextIOWrapper(log, "utf-8", write_through=True)
        text.write("größer\n")
        text.flush()
    assert stream.getvalue() == "größer\n".encode()
