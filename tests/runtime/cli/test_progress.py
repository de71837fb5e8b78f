"""What the progress display of a request says, and what it does without events."""

from pathlib import Path
from typing import Any

import pytest

from consisid_runtime.cli.progress import Display, watched
from consisid_runtime.errors import NoFace, ServerError
from consisid_runtime.events import Event
from consisid_runtime.options import Options

REQUEST = (Path("a.png"), "a man", Options())


class Client:
    """Fails as it is told, after the events."""

    def __init__(self, error: Exception | None, *events: Event) -> None:
        self.error, self.events, self.plain = error, events, 0

    def generate(self, *request: Any, similarity: bool, urgent: bool, on_progress: Any = None) -> str:
        assert request == REQUEST and not similarity and urgent
        if on_progress is None:
            self.plain += 1
            return "video"
        for event in self.events:
            on_progress(event)
        if self.error is not None:
            raise self.error
        return "watched"


class Shown(Display):
    def __init__(self) -> None:
        super().__init__("request")
        self.lines: list[tuple[str, int, int]] = []

    def update(self, activity: str, done: int, total: int) -> None:
        self.lines.append((activity, done, total))


def test_events_are_shown() -> None:
    display = Shown()
    client: Any = Client(None, Event("queue", 0, 1, position=2), Event("denoise", 9, 50, seconds_left=30.4))
    assert watched(client, *REQUEST, display, urgent=True) == "watched"  # type: ignore[comparison-overlap]
    assert display.lines == [("queue, 2 before it", 0, 1), ("denoise, 30 s left", 9, 50)]


def test_a_server_without_events_is_asked_plainly() -> None:
    client: Any = Client(ServerError("http://… answered with HTTP status 400"))
    assert watched(client, *REQUEST, Shown(), urgent=True) == "video"  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("client", [Client(NoFace("none")), Client(ServerError("x"), Event("face", 0, 1))])
def test_nothing_is_computed_twice(client: Any) -> None:
    with pytest.raises(type(client.error)):
        watched(client, *REQUEST, Shown(), urgent=True)
    assert client.plain == 0
