"""The progress display of all commands that take longer than two seconds."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from consisid_runtime.errors import ServerError

if TYPE_CHECKING:
    from consisid_runtime.client.client import Client
    from consisid_runtime.events import Event
    from consisid_runtime.options import Options
    from consisid_runtime.video import Video


class Display:
    """Shows the current work, its progress and the elapsed time on standard error, if that is a terminal.

    A context manager. `update` can be passed as any progress callback of this project.
    """

    def __init__(self, title: str) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._title = title
        self._task: TaskID = self._progress.add_task(title, total=None)

    def update(self, activity: str, done: int, total: int) -> None:
        """Show that `done` of `total` parts of the current activity are finished."""
        self._progress.update(self._task, description=f"{self._title}: {activity}", completed=done, total=total)

    def show(self, event: Event) -> None:
        """Show how far a request is."""
        left = "" if event.seconds_left is None else f", {event.seconds_left:.0f} s left"
        before = f", {event.position} before it" if event.position else ""
        self.update(f"{event.stage}{before}{left}", event.done, event.total)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


def watched(
    client: Client,
    image: Path,
    prompt: str,
    options: Options,
    display: Display,
    *,
    similarity: bool = False,
    urgent: bool = False,
) -> Video:
    """Request a video and show how far it is; without events where the server has none. Raises as `Client.generate`."""
    events = 0

    def show(event: Event) -> None:
        nonlocal events
        events += 1
        display.show(event)

    try:
        return client.generate(image, prompt, options, similarity=similarity, urgent=urgent, on_progress=show)
    except ServerError as error:
        # Triton server itself, over HTTP, does not know the call: nothing was computed.
        if events or type(error) is not ServerError:
            raise
    return client.generate(image, prompt, options, similarity=similarity, urgent=urgent)
