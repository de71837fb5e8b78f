from types import SimpleNamespace

import pytest

from consisid_measurement import harness


@pytest.fixture(autouse=True)
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collecting garbage before each sample takes a tenth of a second in a process that has run many tests."""
    monkeypatch.setattr(harness, "gc", SimpleNamespace(collect=int))
