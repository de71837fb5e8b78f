"""A portrait and a prompt in, a video out, in one process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from consisid_runtime.bundle import Bundle
from consisid_runtime.errors import ForkedProcess
from consisid_runtime.events import Progress, silent
from consisid_runtime.files.image_file import image_bytes
from consisid_runtime.memory.decide import Setting
from consisid_runtime.options import Options, check_prompt
from consisid_runtime.stages import table
from consisid_runtime.video import Video
from consisid_runtime.wire import describe


class Pipeline:
    """The stages over one bundle. Nothing is kept between calls but the loaded engines, and the text states of the last
    negative prompts.

    The threads of the engines do not exist in a forked process: open a pipeline in the process that uses it.

    Attributes:
        bundle: as opened.
        stages: name → loaded stage, in the order of `stages.table`.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._process = os.getpid()
        self.bundle = bundle
        self.stages: dict[str, Any] = table.load(bundle)

    @classmethod
    def open(
        cls, path: str | Path, *, device: str = "auto", threads: int | None = None, memory: Setting | None = None
    ) -> Pipeline:
        """Open the bundle at `path` and load every engine. Arguments and errors as `Bundle.open`."""
        return cls(Bundle.open(path, device=device, threads=threads, memory=memory))

    def generate(
        self,
        image: str | Path | bytes | bytearray,
        prompt: str,
        options: Options | None = None,
        *,
        progress: Progress = silent,
    ) -> Video:
        """Make one video.

        Args:
            image: the portrait: a path, or a file's bytes (JPEG, PNG, WebP, …).
            prompt: what the video shows, at most 64 KiB; at most the checkpoint's token limit is used. `info` reports
                where it was cut and what the vocabulary lacks, among its "warnings".
            options: see `Options`.
            progress: called with (stage, done, total) when a stage begins and after each denoising step.

        Raises `InvalidRequest` subclasses for what cannot be done, before any network runs where neither a network nor
        the vocabulary is needed to see it; `ForkedProcess` in another process than the pipeline was opened in;
        `NotFinite` where the networks fail. The video's `info` is that of a served one.
        """
        request = self.bundle.plan(Options() if options is None else options)
        values: table.Values = {"prompt": check_prompt(prompt), "image": image_bytes(image)}
        if self._process != os.getpid():
            raise ForkedProcess(
                f"the pipeline was opened in process {self._process}, and process {os.getpid()} was forked from it: "
                "the engines' threads are missing here"
            )
        reports = table.run(self.stages, values, request, progress)
        memory = {} if self.bundle.memory is None else {"memory": self.bundle.memory.to_json()}
        return Video(
            mp4=values["video"],
            frames=values["frames"],
            fps=request.options.fps,
            info=describe(request, self.bundle.fingerprint, reports) | memory,
        )
