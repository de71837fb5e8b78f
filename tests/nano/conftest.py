"""Fixtures: an installation of consisid-nano with other data."""

from pathlib import Path

import pytest

from consisid_nano import package


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Package folder of an installation without data."""
    folder = tmp_path / "consisid_nano"
    folder.mkdir()
    monkeypatch.setattr(package, "PACKAGE", folder)
    return folder
