"""Streams and events of a device that runs nothing: they remember who waits for whom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Event:
    """A point in a stream."""

    def __init__(self, *_: object, **__: object) -> None:
        self.stream: Stream | None = None

    def record(self, stream: Stream | None = None) -> None:
        self.stream = stream or current_stream()

    def wait(self, stream: Stream | None = None) -> None:
        (stream or current_stream()).wait_event(self)

    def query(self) -> bool:
        return True

    def synchronize(self) -> None: ...


class Stream:
    """A queue of the device.

    Attributes:
        waits: the streams that it has waited for, in order.
    """

    made = 0

    def __init__(self, device: object = None, **_: object) -> None:
        Stream.made += 1
        self.cuda_stream, self.device = Stream.made, torch.device("cuda", 0)
        self.waits: list[Stream] = []

    def wait_stream(self, other: Stream) -> None:
        self.waits.append(other)

    def wait_event(self, event: Event) -> None:
        assert event.stream is not None, "an event that was never recorded"
        self.waits.append(event.stream)

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def synchronize(self) -> None: ...


_DEFAULT = Stream()
_DEFAULT.cuda_stream = 0
_current = [_DEFAULT]


def current_stream(*_: object) -> Stream:
    return _current[-1]


@contextmanager
def stream(chosen: Stream | None) -> Iterator[None]:
    """What is queued inside goes to `chosen`."""
    _current.append(chosen or current_stream())
    try:
        yield
    finally:
        _current.pop()


FUNCTIONS: dict[str, Any] = {
    "Event": Event,
    "Stream": Stream,
    "current_stream": current_stream,
    "default_stream": lambda *_: _DEFAULT,
    "stream": stream,
}
"""What takes the place of `torch.cuda`'s."""
