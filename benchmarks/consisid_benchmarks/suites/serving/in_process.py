"""The pipeline without a server, in a process of its own."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING

from consisid_benchmarks.suites.own_process import OwnProcess
from consisid_runtime.allocator import keep_freed_memory
from consisid_runtime.options import Options
from consisid_runtime.video import Video

if TYPE_CHECKING:
    from consisid_runtime.pipeline import Pipeline


class InProcess(OwnProcess):
    """A process that opens a bundle at its first video."""

    def __init__(self, bundle: Path) -> None:
        super().__init__()
        self._bundle = bundle

    def __call__(self, image: bytes, prompt: str, options: Options) -> tuple[Video, float]:
        """The video, and the seconds of `Pipeline.generate`."""
        found: tuple[Video, float] = self.run(_generate, self._bundle, image, prompt, options)
        return found


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
