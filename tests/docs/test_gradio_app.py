"""The Gradio app of docs/examples starts, and shows what a server tells. Skips where gradio is not installed."""

from __future__ import annotations

import asyncio
import importlib.util
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import pytest

from consisid_runtime import Options, Video
from consisid_runtime.errors import Busy
from consisid_runtime.events import Event

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "gradio_app.py"
EVENTS = [
    Event("queue", 0, 1, position=2),
    Event("denoise", 5, 50, seconds_left=40.2, preview=b"a JPEG"),
    Video(mp4=b"an MP4", frames=np.zeros((1, 2, 2, 3), np.uint8), fps=8),
]
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        pytest.importorskip("gradio")
        spec = importlib.util.spec_from_file_location("gradio_app", EXAMPLE)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


class Served:
    """In place of `AsyncClient`, and of its stream."""

    error: Exception | None = None
    asked: Any = None

    def __init__(self, servers: list[str], timeout: float) -> None:
        assert timeout > 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def stream(self, portrait: str, prompt: str, options: Options, *, previews: bool) -> Self:
        Served.asked = (portrait, prompt, options, previews)
        return self

    async def __aiter__(self) -> AsyncIterator[Event | Video]:
        for item in EVENTS:
            yield item
        if self.error is not None:
            raise self.error


def test_it_starts(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    app = example.app()
    _, url, _ = app.launch(prevent_thread_lock=True, server_name="127.0.0.1", quiet=True, inbrowser=False)
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"ConsisID" in answer.read()
    finally:
        app.close()


def test_it_shows_progress_previews_and_the_video(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "AsyncClient", Served)

    async def watch() -> list[Any]:
        shown = []
        async for line, preview, video in example.make_video("me.jpg", "a man", 7.0, 20.0):
            files = [Path(each).read_bytes() if isinstance(each, str) else None for each in (preview, video)]
            shown.append((line, *files))
        return shown

    assert asyncio.run(watch()) == [
        ("2 before this one", None, None),
        ("denoise: 5 of 50, about 40 s left", b"a JPEG", None),
        ("done", None, b"an MP4"),
    ]
    assert Served.asked == ("me.jpg", "a man", Options(seed=7, steps=20), True)
    monkeypatch.setattr(Served, "error", Busy("eight requests wait"))
    with pytest.raises(example.gr.Error, match="eight requests wait"):
        asyncio.run(watch())
