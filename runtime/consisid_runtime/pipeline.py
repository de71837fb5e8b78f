"""A portrait and a prompt in, a video out, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from consisid_runtime.bundle import Bundle
from consisid_runtime.files.image_file import read_file
from consisid_runtime.options import Options, check_prompt, plan
from consisid_runtime.stages.decode import Decoder
from consisid_runtime.stages.denoise import Denoiser
from consisid_runtime.stages.encode import Encoder
from consisid_runtime.stages.face.reader import FaceReader
from consisid_runtime.stages.text import TextReader
from consisid_runtime.video import Video, encode_mp4
from consisid_runtime.wire import describe

Progress = Callable[[str, int, int], None]


class Pipeline:
    """The five stages over one bundle. Nothing is kept between calls but the loaded engines."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.read_face = FaceReader(bundle)
        self.read_text = TextReader(bundle)
        self.encode = Encoder(bundle)
        self.denoise = Denoiser(bundle)
        self.decode = Decoder(bundle)

    @classmethod
    def open(cls, path: str | Path, *, device: str = "auto", threads: int | None = None) -> Pipeline:
        """Open the bundle at `path` and load every engine. Arguments and errors as `Bundle.open`."""
        return cls(Bundle.open(path, device=device, threads=threads))

    def generate(
        self,
        image: str | Path | bytes | bytearray,
        prompt: str,
        options: Options | None = None,
        *,
        progress: Progress | None = None,
    ) -> Video:
        """Make one video.

        Args:
            image: the portrait: a path, or a file's bytes (JPEG, PNG, WebP, …).
            prompt: what the video shows; at most the checkpoint's token limit is used, `info` says where it was cut.
            options: see `Options`.
            progress: called with (stage, done, total) when a stage begins and after each denoising step.

        Raises `InvalidRequest` subclasses for what cannot be done, `NotFinite` where the networks fail. The video's
        `info` is that of a served one.
        """
        stages = _Stages(progress or _silent)
        request = plan(Options() if options is None else options, self.bundle.geometry)
        check_prompt(prompt)
        photo = bytes(image) if isinstance(image, bytes | bytearray) else read_file(image)
        with stages("face") as report:
            face = self.read_face(photo, request)
            report |= face.info
        with stages("text") as report:
            text = self.read_text(prompt, request)
            report |= text.info
        with stages("encode"):
            moments = self.encode(face.portrait, face.keypoints, request)
        with stages("denoise"):
            latents = self.denoise(text.states, face.tokens, moments, request, on_step=stages.step)
        with stages("decode"):
            frames = self.decode(latents, request)
            mp4 = encode_mp4(frames, request.options.fps)
        info = describe(request, self.bundle.fingerprint, stages.reports)
        return Video(mp4=mp4, frames=frames, fps=request.options.fps, info=info)


class _Stages:
    """What each stage reports and how long it takes; tells the progress display where the work is."""

    def __init__(self, progress: Progress) -> None:
        self.reports: dict[str, dict[str, Any]] = {}
        self._progress = progress

    @contextmanager
    def __call__(self, name: str) -> Iterator[dict[str, Any]]:
        self._progress(name, 0, 1)
        report = self.reports[name] = dict[str, Any]()
        begin = time.perf_counter()
        yield report
        report["seconds"] = time.perf_counter() - begin

    def step(self, done: int, total: int) -> None:
        self._progress("denoise", done, total)


def _silent(stage: str, done: int, total: int) -> None:
    pass
