"""A checkpoint to damage, and what opening it says."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_runtime.errors import CheckpointInvalid


@pytest.fixture
def damaged(untrained: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(untrained, tmp_path / "checkpoint"))


@pytest.fixture
def refusal() -> Callable[[Path], str]:
    """Returns the message of the error that opening a folder raises."""

    def message(folder: Path) -> str:
        with pytest.raises(CheckpointInvalid) as caught:
            Checkpoint.open(folder)
        return str(caught.value)

    return message
