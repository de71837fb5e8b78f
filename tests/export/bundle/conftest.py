"""A checkpoint to export, and exports that fail."""

from collections.abc import Callable
from pathlib import Path

import pytest

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_runtime.events import Progress


@pytest.fixture
def checkpoint(untrained: Path) -> Checkpoint:
    return Checkpoint.open(untrained)


@pytest.fixture
def failing_at() -> Callable[[str, BaseException], Progress]:
    """Makes a progress that raises an error when an export comes to a module."""

    def make(module: str, error: BaseException) -> Progress:
        def progress(name: str, done: int, total: int) -> None:
            if name == module:
                raise error

        return progress

    return make
