"""The progress display of all commands that take longer than two seconds."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


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

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
