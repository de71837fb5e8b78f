from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

LOADED = [f"consisid_runtime.serve.{name}" for name in ("models", "stream.composed", "stream.model")]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the streaming model, without Triton server."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("triton_python_backend_utils"))
    for name in LOADED:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(LOADED[-1])
    for name in LOADED:
        sys.modules.pop(name, None)
