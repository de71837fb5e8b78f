"""An operator's functions: found at once, checked at every call."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consisid_runtime.errors import ConsentRefused, HookFailed, InvalidOption
from consisid_runtime.options import Options
from consisid_runtime.provenance.hooks import Watermark, check_consent, load_hook

MODULE = """
import numpy as np
number = 3
def invert(frames): return 255 - frames
def crop(frames): return frames[:, 1:]
def widen(frames): return frames.astype(np.int16)
def drop(frames): return None
"""
FRAMES = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with a version around a module without one."""
    folder = tmp_path / "operators_marks"
    folder.mkdir()
    (folder / "__init__.py").write_text("__version__ = '1.5'\n")
    (folder / "pixels.py").write_text(MODULE)
    (folder / "broken.py").write_text("raise OSError('no licence')\n")
    (tmp_path / "without_version.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("operators_marks", "operators_marks.pixels", "operators_marks.broken", "without_version"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "operators_marks.pixels"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere_at_all:mark", "ModuleNotFoundError"),
        ("operators_marks.pixels:absent", "AttributeError"),
        ("operators_marks.broken:mark", "OSError: no licence"),
        ("operators_marks.pixels:number", "is no function"),
        ("operators_marks.pixels", "named module:function"),
        (":mark", "named module:function"),
        (".relative:mark", "cannot be loaded"),
    ],
)
def test_a_hook_that_is_not_there(package: str, name: str, problem: str) -> None:
    with pytest.raises(InvalidOption, match=problem):
        load_hook(name)


def test_a_watermark_has_a_name_and_a_version(package: str) -> None:
    watermark = Watermark(f"{package}:invert")
    assert watermark.info == {"name": "operators_marks.pixels:invert", "version": "1.5"}
    assert np.array_equal(watermark(FRAMES), 255 - FRAMES)
    with pytest.raises(InvalidOption, match="give its module a __version__"):
        Watermark("without_version:invert")


@pytest.mark.parametrize(("function", "found"), [("crop", "[2, 3, 6, 3]"), ("widen", "int16"), ("drop", "NoneType")])
def test_a_watermark_that_returns_something_else(package: str, function: str, found: str) -> None:
    with pytest.raises(HookFailed) as failed:
        Watermark(f"{package}:{function}")(FRAMES)
    assert found in str(failed.value) and "not uint8 [2, 4, 6, 3]" in str(failed.value)


def test_consent_is_asked_with_all_that_was_sent() -> None:
    seen: list[Any] = []

    def hook(*asked: Any) -> None:
        seen.append(asked)

    check_consent(hook, b"image", "a man", Options(seed=3), "127.0.0.1")
    assert seen == [(b"image", "a man", Options(seed=3), "127.0.0.1")]


@pytest.mark.parametrize(("answer", "shown"), [("the person is not registered", "not registered"), ("", "operator")])
def test_a_text_refuses(answer: str, shown: str) -> None:
    with pytest.raises(ConsentRefused, match=shown):
        check_consent(lambda *_: answer, b"", "", Options(), "")


@pytest.mark.parametrize("answer", [True, False, 0, b"no"])
def test_any_other_answer_is_no_consent(answer: Any) -> None:
    with pytest.raises(HookFailed, match="not a text or None"):
        check_consent(lambda *_: answer, b"", "", Options(), "")
