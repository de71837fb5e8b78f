"""A caller who ends a stream without a ticket. The door never does: see `Upstream.stream`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from consisid_runtime.errors import RequestCancelled


@pytest.mark.parametrize("left", [False, True])
def test_a_look_raises_where_the_caller_ended_the_call(model: Any, left: bool) -> None:
    looked: list[tuple[str, int, int]] = []
    look = model._Answers(SimpleNamespace(is_cancelled=lambda: left), "id").looking(lambda *what: looked.append(what))
    if left:
        with pytest.raises(RequestCancelled, match="the caller ended the call"):
            look("denoise", 1, 3)
    else:
        look("denoise", 1, 3)
    assert looked == [("denoise", 1, 3)]
