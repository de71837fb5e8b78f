"""One progress display for everything that takes longer than two seconds; silent where output is not a terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Display:
    """Shows what is being done, how far, and for how long. `update` has the shape of every progress callback here."""

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

    def update(self, stage: str, done: int, total: int) -> None:
        """`stage` is what is being done now; `done` of `total` parts of it are finished."""
        self._progress.update(self._task, description=f"{self._title}: {stage}", completed=done, total=total)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
