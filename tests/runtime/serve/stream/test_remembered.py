"""How many faces the streaming model remembers, and for how long, is what its launcher says."""

from __future__ import annotations

from typing import Any

import pytest

from consisid_runtime.errors import InvalidOption
from consisid_runtime.wire import FACES_KEPT_VARIABLE, FACES_SECONDS_VARIABLE


@pytest.mark.parametrize(("kept", "seconds", "found"), [("3", "2.5", (3, 2.5)), (None, None, (64, 3600.0))])
def test_the_variables_are_read(
    model: Any, monkeypatch: pytest.MonkeyPatch, kept: str | None, seconds: str | None, found: tuple[int, float]
) -> None:
    for name, value in ((FACES_KEPT_VARIABLE, kept), (FACES_SECONDS_VARIABLE, seconds)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    faces = model._faces()
    assert (faces._kept, faces._seconds) == found


@pytest.mark.parametrize("kept", ["many", "-1", "2.5", ""])
def test_a_variable_that_is_no_number_ends_the_model_with_a_typed_error(
    model: Any, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    monkeypatch.setenv(FACES_KEPT_VARIABLE, kept)
    with pytest.raises(InvalidOption, match="got"):
        model._faces()
