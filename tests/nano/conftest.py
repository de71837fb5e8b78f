"""A consisid-nano with other data than the trained one."""

from pathlib import Path

import pytest

from consisid_nano import package


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the distribution takes its data from: folder of an installation without any."""
    folder = tmp_path / "consisid_nano"
    folder.mkdir()
    monkeypatch.setattr(package, "PACKAGE", folder)
    return folder
