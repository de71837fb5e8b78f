"""The pipeline without a server, in a process of its own."""

from __future__ import annotations

import functools
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from consisid_runtime.allocator import keep_freed_memory
from consisid_runtime.options import Options
from consisid_runtime.video import Video

if TYPE_CHECKING:
    from consisid_runtime.pipeline import Pipeline


class InProcess:
    """A process that opens a bundle at its first video; a context manager that ends it."""

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def __call__(self, image: bytes, prompt: str, options: Options) -> tuple[Video, float]:
        """The video, and the seconds of `Pipeline.generate`."""
        return self._pool.submit(_generate, self._bundle, image, prompt, options).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()


def _generate(bundle: Path, image: bytes, prompt: str, options: Options) -> tuple[Video, float]:
    pipeline = _opened(bundle)
    begin = time.perf_counter()
    video = pipeline.generate(image, prompt, options)
    seconds = time.perf_counter() - begin
    # Without the frames, which a server does not send either.
    return Video(mp4=video.mp4, frames=None, fps=video.fps, info=video.info), seconds


@functools.cache
def _opened(bundle: Path) -> Pipeline:
    from consisid_runtime.pipeline import Pipeline

    keep_freed_memory()  # as the command and the models do
    return Pipeline.open(bundle)
